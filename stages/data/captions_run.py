"""What ``pea data captions`` does."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from data_tools.corpus.caption_index import CaptionIndex, caption_index, matched
from data_tools.corpus.column_names import ColumnMapping, parse_mapping, propose_mapping
from data_tools.corpus.corpus_keys import corpus_tars, require_cache_or_tars, sample_documents, sample_keys
from data_tools.corpus.parts import PartFolder
from data_tools.tables import say
from pea.corpus.damaged_tars import FINISHED_IS_KEPT, DamagedTars
from pea.corpus.languages import remarks_on
from pea.corpus.places import Tar
from pea.corpus.samples import sample_id
from pea.corpus.tables import Row, Table, open_table
from pea.errors import CorpusError
from pea.foreign_text import file_name
from pea.plurals import count_of
from pea.storage.location import Location

_LOOKED_AT = 200


def run(arguments: argparse.Namespace) -> int:
    """Match, write, and account for every row and sample.

    Raises:
        CorpusError: a table or tars are damaged, or not one caption is of a sample.
    """
    require_cache_or_tars(arguments.corpus, arguments.by)
    table, tars = open_table(arguments.table), corpus_tars(arguments.corpus)
    naming = _Naming(table, arguments.by)
    mapping = _mapping(table, arguments, naming)
    say(f"sample: {naming}")
    for line in mapping.lines():
        say(line)
    settings = {"command": "captions", "table": [file.where for file in table.files], "mapping": mapping.lines()}
    folder = PartFolder(Location.parse(arguments.out), settings | {"sample": str(naming)}, arguments.format)
    with caption_index(arguments.out / ".index.sqlite") as index:
        index.fill(table, naming.of_row, mapping)
        total, damaged = Counter[str](), DamagedTars()
        for name, tar in tars:
            with damaged.noted():
                total += _one_tar(arguments, folder, index, naming, name, tar)
        _refuse_ambiguous(index, naming)
        _account(index, total)
        damaged.refuse(FINISHED_IS_KEPT)
        if not total["matched"]:
            raise _nothing_matches(arguments, index, naming, tars)
    return 0


def _one_tar(
    arguments: argparse.Namespace,
    folder: PartFolder,
    index: CaptionIndex,
    naming: _Naming,
    name: str,
    tar: Tar | None,
) -> Counter[str]:
    found, num_samples = matched(index, naming.of_samples(arguments.corpus, name, tar))
    counts = Counter(samples=num_samples, matched=len(found), tars=1)
    for _, captions in found:
        counts.update(f"in {language}" for language in captions)
    rows = [{"tar": name, "key": key, "captions": captions} for key, captions in found]
    if rows:
        folder.publish(file_name(name), "", rows, counts)
    return counts


class _Naming:
    """How the rows of a table and the samples of a corpus are known to be the same."""

    def __init__(self, table: Table, by: str | None) -> None:
        column, _, field = (by or "").partition("=")
        self.columns: tuple[str, ...] = (column,) if by else _own_naming(table)
        self.field = (field or column) if by else None
        table.require(self.columns)

    def __str__(self) -> str:
        return f"{self.columns[0]} is {self.field} of the json" if self.field else " and ".join(self.columns)

    def of_row(self, row: Row) -> str | None:
        """What a row calls its sample."""
        parts = [_name_in(row, column) for column in self.columns]
        return None if None in parts else "/".join(str(part) for part in parts)

    def of_samples(self, places: list[str], name: str, tar: Tar | None) -> Iterator[tuple[str, str | None]]:
        """(Key, what a row would call it) of the samples of a tar."""
        if self.field is not None:
            assert tar is not None
            for key, row in sample_documents(tar):
                yield key, None if row is None else _name_in(row, self.field)
            return
        for key in sample_keys(places, name, tar):
            yield key, key if self.columns == ("key",) else sample_id(name, key)


def _name_in(row: Row, column: str) -> str | None:
    """What a row has in a column, as a name; None: nothing, or what no sample is called."""
    value = row.get(column)
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    text = str(value)
    return text if text.strip() and text.encode("utf-8", "ignore").decode() == text else None  # a lone surrogate


def _own_naming(table: Table) -> tuple[str, ...]:
    for names in (("tar", "key"), ("id",), ("key",)):
        if set(names) <= set(table.columns):
            return names
    expected = "columns tar and key, or id, or key"
    remedy = "Say which column names the sample: --by COLUMN=FIELD."
    raise CorpusError(
        "no column names the sample", where=table, expected=expected, got=", ".join(table.columns), remedy=remedy
    )


def _mapping(table: Table, arguments: argparse.Namespace, naming: _Naming) -> ColumnMapping:
    rows = list(islice(table.rows(on_bad=lambda _: None), _LOOKED_AT))
    if not rows:
        raise CorpusError("the table has no row that can be read", where=table)
    given = parse_mapping(arguments.map)
    table.require(given.used())
    values: list[dict[str, Any]] = [{n: v for n, v in row.values.items() if n not in naming.columns} for row in rows]
    plain = [Row(row.where, row.number, each) for row, each in zip(rows, values, strict=True)]
    return propose_mapping(plain, given, None, language=arguments.language)


def _refuse_ambiguous(index: CaptionIndex, naming: _Naming) -> None:
    """A caption belongs to all samples of one URL, but a key that several tars have means one of them."""
    if naming.columns == ("key",) and naming.field is None and (count := index.num_ids("> 1")):
        raise CorpusError(
            f"{count_of(count, 'key')} of several tars",
            got=", ".join(index.some("> 1")),
            remedy="Add a column tar to the table, or give the tars of one corpus alone.",
        )


def _account(index: CaptionIndex, total: Counter[str]) -> None:
    counts = index.counts
    say(f"rows of the table: {counts.rows}")
    say(f"  with captions: {counts.taken}, of {index.num_ids()} samples")
    for count, what in (
        (counts.bad, "cannot be read"),
        (counts.without_id, "name no sample"),
        (counts.without_caption, "have no caption"),
        (counts.not_text, "have a caption that is no text, or of no language"),
    ):
        if count:
            say(f"  {what}: {count}")
    if counts.repeated:
        say(f"  captions of a sample and language that had one already (the first counts): {counts.repeated}")
    say(f"  of samples that the corpus does not have: {index.num_ids('= 0')}" + _examples(index.some("= 0")))
    say(f"samples of the corpus: {total['samples']} in {count_of(total['tars'], 'tar')}")
    say(f"  with a caption here: {total['matched']}; without: {total['samples'] - total['matched']}")
    for name in sorted(name for name in total if name.startswith("in ")):
        say(f"  {name}: {total[name]}")
    for remark in remarks_on(name.removeprefix("in ") for name in total if name.startswith("in ")):
        say(f"note: {remark}")


def _examples(names: list[str]) -> str:
    return f" ({', '.join(names)}{', ...' if len(names) == 3 else ''})" if names else ""


def _nothing_matches(
    arguments: argparse.Namespace, index: CaptionIndex, naming: _Naming, tars: list[tuple[str, Tar | None]]
) -> CorpusError:
    named = (name for tar in tars[:1] for _, name in naming.of_samples(arguments.corpus, *tar) if name is not None)
    there = list(islice(named, 3))
    return CorpusError(
        "not one caption is of a sample of the corpus",
        where=", ".join(arguments.table),
        expected=f"names as {', '.join(there) or 'none'}",
        got=", ".join(index.some()) or "no captions",
        remedy="Say how rows and samples are known to be the same: --by COLUMN=FIELD, or PREFIX::PATTERN for the tars.",
    )
