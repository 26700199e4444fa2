"""A corpus of texts alone: a table whose images the teacher draws, cut into parts that take the place of tars.

A part is some consecutive rows of one file. Its digest is of the keys and captions that are read from them, not of the
file, so that the same rows in another kind of table are the same part.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from pea.corpus.captions import read_captions
from pea.corpus.grouping import key_problem, shown_key
from pea.corpus.languages import LANGUAGES
from pea.corpus.places import sample_id
from pea.corpus.reasons import BadSampleError, Rejected
from pea.corpus.rules import TextSource
from pea.corpus.table_rows import BadRow, Row, TableFile
from pea.corpus.tables import Table, open_table
from pea.corpus.tars import TarIdentity
from pea.errors import CorpusError
from pea.storage.location import Location

_ALL = "captions"
_IDS = ("id", "key")


@dataclass(frozen=True)
class TextPart:
    """Some consecutive rows of one file of a table."""

    name: str
    """Takes the place of a tar's."""
    source: TextSource
    location: Location
    """The file."""
    first: int
    """Rows before it in the file, the unusable ones included."""
    num_rows: int

    def resolve(self) -> TextPart:
        """The same for another working directory."""
        return replace(self, location=self.location.resolve())

    def __str__(self) -> str:
        return f"{self.location}, rows {self.first + 1} to {self.first + self.num_rows}"


@dataclass(frozen=True)
class Text:
    """One row: what the teacher draws, and what the student reads."""

    tar: str
    """Name of the part."""
    key: str
    """The row's id, or a digest of its text."""
    captions: dict[str, str]
    """Language -> caption; no empty ones."""

    @property
    def id(self) -> str:
        """What names the sample everywhere."""
        return sample_id(self.tar, self.key)


def text_fields(table: Table, source: TextSource) -> dict[str, str]:
    """Language -> column, as ``read_captions`` takes it.

    Raises:
        CorpusError: the table has no such column, or none that could be meant.
    """
    if source.captions:
        table.require([column for _, column in source.captions])
        return dict(source.captions)
    if _ALL in table.columns:
        return {"*": _ALL}
    codes = LANGUAGES - {*_IDS}  # Indonesian has to be named
    found = {name: name for name in table.columns if name.partition("-")[0].partition("_")[0].lower() in codes}
    if source.source_language not in found:
        raise CorpusError(
            f"no column for {source.source_language}",
            where=table,
            expected=f"{source.source_language}, or what corpora.parallel.captions names",
            got=", ".join(table.columns[:40]),
            remedy="Set corpora.parallel.captions, as {en: text, zh: translation}.",
        )
    return found


def open_texts(source: TextSource) -> tuple[Table, dict[str, str], str | None]:
    """The table, its caption columns, and the column of its ids.

    Raises:
        CorpusError: there is none, it cannot be read, or it lacks a column.
    """
    table = open_table(source.places)
    if source.id_column is not None:
        table.require([source.id_column])
    ids = source.id_column or next((name for name in _IDS if name in table.columns), None)
    return table, text_fields(table, source), ids


def text_parts(source: TextSource) -> Iterator[tuple[TextPart, TarIdentity]]:
    """Every part of the tables with what makes it the same, in one pass; parts are named ``FILE-00000``, ...

    Raises:
        CorpusError: a table cannot be read, or two of them have one name.
    """
    table, fields, ids = open_texts(source)
    stems = [_stem(file) for file in table.files]
    if twice := [stem for stem, times in Counter(stems).items() if times > 1]:
        raise CorpusError("two tables have one name", got=twice[0], remedy="Give each a name of its own.")
    for stem, file in zip(stems, table.files, strict=True):
        rows = file.rows(())
        for number in count(0):
            chosen = list(islice(rows, source.rows_per_part))
            if not chosen:
                break
            first = number * source.rows_per_part
            part = TextPart(f"{stem}-{number:05d}", source, Location.parse(file.where), first, len(chosen))
            yield part, _identity(part.name, list(_outcomes(part, chosen, fields, ids)))


def read_text_part(
    part: TextPart,
    *,
    skip: Collection[str] = (),
    in_flight: Callable[[str], object] = lambda _: None,
    expect: TarIdentity | None = None,
) -> Iterator[Text | Rejected]:
    """Every row of a part, usable or not. ``skip``: keys that are rejected; ``expect``: what it must be.

    Raises:
        CorpusError: the table cannot be read, or the part is not what is expected; before the first row.
    """
    _, fields, ids = open_texts(part.source)
    file = _file(part)
    rows = list(islice(file.rows(()), part.first, part.first + part.num_rows))
    found = list(_outcomes(part, rows, fields, ids))
    if expect is not None and _identity(part.name, found) != expect:
        raise CorpusError(
            "the texts have changed since the cache was begun",
            where=part,
            expected=f"sha256 {expect.sha256[:12]}…",
            remedy="Restore the table, or make them again with `pea cache --replace`.",
        )
    for each in found:
        in_flight(each.key)
        yield Rejected(each.tar, each.key, "process_killed") if each.key in skip else each


def _stem(file: TableFile) -> str:
    return Location.parse(file.where).name.partition(".")[0]


def _file(part: TextPart) -> TableFile:
    [file] = open_table([str(part.location)]).files
    return file


def _outcomes(
    part: TextPart, rows: Sequence[Row | BadRow], fields: Mapping[str, str], ids: str | None
) -> Iterator[Text | Rejected]:
    seen: Counter[str] = Counter()
    languages = set[str]()
    for row in rows:
        key = f"row-{row.number}"
        try:
            if isinstance(row, BadRow):
                raise BadSampleError("row_unreadable", row.problem)
            given = _given_id(row, ids)
            texts = _captions(row, fields, part.source.source_language, languages)
            key = given or _digest(texts[part.source.source_language])
            seen[key] += 1
            if given is None and seen[key] > 1:
                key = f"{key}-{seen[key]}"
            elif seen[key] > 1:
                raise BadSampleError("key_duplicate", f"row {row.number}")
            yield Text(part.name, key, texts)
        except BadSampleError as bad:
            yield Rejected(part.name, key, bad.reason, bad.detail[:200])


def _given_id(row: Row, ids: str | None) -> str | None:
    value = None if ids is None else row.get(ids)
    key = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not key:
        return None
    if problem := key_problem(key):
        raise BadSampleError(problem, shown_key(key))
    return key


def _captions(row: Row, fields: Mapping[str, str], source_language: str, known: set[str]) -> dict[str, str]:
    texts = {language: row.get(column) for language, column in fields.items()}
    if "*" in texts:
        texts = dict(texts["*"]) if isinstance(texts["*"], Mapping | list) else {}
    return read_captions({_ALL: texts}, {"*": _ALL}, (source_language,), known)


def _digest(text: str) -> str:
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _identity(name: str, outcomes: Sequence[Text | Rejected]) -> TarIdentity:
    digest, size_bytes = hashlib.sha256(), 0
    for each in outcomes:
        content = [each.captions] if isinstance(each, Text) else [each.reason, each.detail]
        line = json.dumps([each.key, *content], sort_keys=True, ensure_ascii=False).encode("utf-8", "backslashreplace")
        digest.update(line + b"\n")
        size_bytes += len(line) + 1
    return TarIdentity(name, size_bytes, digest.hexdigest())
