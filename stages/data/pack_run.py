"""What ``pea data pack`` does."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from data_tools.corpus.column_names import parse_mapping
from data_tools.corpus.pack import REASONS, PackCounts, PackedPart, PackOptions, pack_part, pack_rows
from data_tools.corpus.pack_sources import Source, open_source, open_tars
from data_tools.corpus.tar_items import tar_items
from data_tools.tables import human_bytes, say
from pea.corpus.damaged_tars import FINISHED_IS_KEPT, DamagedTars
from pea.corpus.languages import remarks_on
from pea.corpus.tars import size_of
from pea.errors import ConfigError, CorpusError

_SHOWN = 10
_ROWS_PER_TAR = 1000


def run(arguments: argparse.Namespace) -> int:
    """Pack, and account for everything that was seen.

    Raises:
        ConfigError: an option that this source has no use for.
        CorpusError: the source cannot be used, tars are damaged, or nothing can be packed.
    """
    source = _source(arguments)
    if source.tars:
        _refuse_own_folder(source, arguments.out)
        if arguments.rows_per_tar is not None:
            raise ConfigError(
                "tars are packed into as many tars",
                where="--rows-per-tar",
                remedy="Leave it out, or unpack the tars into a folder and pack that.",
            )
    say(f"source: {source.about}")
    for line in source.lines():
        say(f"  {line}")
    if arguments.dry_run:
        return 0
    total, damaged = PackCounts(), DamagedTars()
    for part in _parts(source, arguments, damaged):
        total.add(part.counts)
        there = "there already, " if part.was_there else ""
        say(f"{arguments.out / part.name}.tar: {there}{part.counts.packed} of {part.counts.seen} packed")
    _account(source, total, arguments.out, len(damaged))
    damaged.refuse(FINISHED_IS_KEPT)
    if not total.packed:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in total.dropped.most_common())
        raise CorpusError(
            "nothing could be packed",
            where=" ".join(arguments.source),
            got=reasons or "an empty source",
            remedy="Say where captions are: --table FILE, --map zh=COLUMN, --language CODE for texts beside images; "
            "or pack images alone: --no-captions.",
        )
    return 0


def _source(arguments: argparse.Namespace) -> Source:
    given, language, captions = parse_mapping(arguments.map), arguments.language, not arguments.no_captions
    if len(arguments.source) > 1:
        for option in ("table", "images"):
            if getattr(arguments, option) is not None:
                raise ConfigError("of one folder or table, and not of several", where=f"--{option}")
        return open_tars(arguments.source, given=given, language=language, captions=captions)
    return open_source(
        arguments.source[0],
        table=arguments.table,
        images=arguments.images,
        given=given,
        language=language,
        captions=captions,
    )


def _parts(source: Source, arguments: argparse.Namespace, damaged: DamagedTars) -> Iterator[PackedPart]:
    options = PackOptions(arguments.resize, arguments.verify, not arguments.no_captions)
    if source.tars:
        for tar in source.tars:
            with damaged.noted():
                made_of = f"{size_of(tar)} bytes, {source.mapping}"
                yield pack_part(tar_items(tar, source.mapping), arguments.out, tar.name, options, made_of)
        return
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", arguments.out.resolve().name).strip("-") or "part"
    yield from pack_rows(source.items(), arguments.out, name, arguments.rows_per_tar or _ROWS_PER_TAR, options)


def _refuse_own_folder(source: Source, out: Path) -> None:
    for tar in source.tars:
        if tar.location.is_local and tar.location.local_path.parent.resolve() == out.resolve():
            raise CorpusError("the tars would be written over themselves", where=out, remedy="Choose another --out.")


def _account(source: Source, total: PackCounts, out: Path, num_damaged: int) -> None:
    """What became of everything; the numbers add up."""
    rows: list[tuple[object, ...]] = [("seen", total.seen, ""), ("packed", total.packed, human_bytes(total.num_bytes))]
    rows += [(f"  in {language}", count, "") for language, count in sorted(total.captions.items())]
    rows += [(f"  {change}", count, "") for change, count in sorted(total.changes.items())]
    if total.respelled:
        rows.append(("  under a name spelled otherwise than in the table", total.respelled, ""))
    rows.append(("left out", total.dropped.total(), f"listed in {out}/*.pack.json" if total.dropped else ""))
    rows += [(f"  {reason}", count, REASONS[reason]) for reason, count in total.dropped.most_common()]
    if source.images is not None:
        rows += _files(source)
    if num_damaged:
        rows.append(("tars that cannot be used", num_damaged, "nothing of them is packed or counted here"))
    width = max(len(str(row[1])) for row in rows)
    label = max(len(str(row[0])) for row in rows)
    for name, count, remark in rows:
        say(f"{name!s:<{label}}  {count!s:>{width}}  {remark}".rstrip())
    for remark in remarks_on(total.captions):
        say(f"note: {remark}")
    for where, reason, detail in total.named[:_SHOWN]:
        say(f"left out: {where}: {reason}" + (f": {detail}" if detail else ""))
    for path in source.unnamed()[:_SHOWN]:
        say(f"no row names: {path}")
    if source.table is None and source.images is not None:
        for path in sorted(source.images.texts - source.images.used_texts)[:_SHOWN]:
            say(f"of no image: {path}")


def _files(source: Source) -> list[tuple[object, ...]]:
    assert source.images is not None
    found, unnamed = source.images, source.unnamed()
    rows: list[tuple[object, ...]] = [("files in the folder", found.num_files, ""), ("  images", len(found.paths), "")]
    if source.table is not None:
        rows.append(("    that a row names", len(found.paths) - len(unnamed), ""))
        rows.append(("    that no row names", len(unnamed), ""))
    rows += [("  texts and jsons", len(found.texts), "")] if found.texts else []
    if source.table is None and found.texts:
        rows.append(("    of no image", len(found.texts) - len(found.used_texts), ""))
    return rows + [(f"  {kind}", count, "") for kind, count in sorted(found.others.items())]
