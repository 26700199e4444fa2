"""What a user points at, and which kind of source that is: a folder, a table, a dataset on disk, tars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data_tools.corpus.column_names import ColumnMapping, overlooked_captions, propose_mapping
from data_tools.corpus.image_files import ImageFiles
from data_tools.corpus.item import Item
from data_tools.corpus.pack_items import folder_items, row_items
from data_tools.corpus.tar_items import TEXT_FIELD, first_rows
from pea.corpus.damaged_tars import DamagedTars
from pea.corpus.places import Tar, expand_tars
from pea.corpus.sidecars import TAR_ENDING
from pea.corpus.tables import Row, Table, is_table, open_table
from pea.errors import ConfigError, CorpusError
from pea.plurals import count_of
from pea.storage.location import Location
from pea.storage.patterns import find, has_wildcards

_ONE_TABLE = "Give a folder with --table TABLE, or a table with --images FOLDER."
_LOOKED_AT = 200  # rows, to see which column is what


@dataclass
class Source:
    """Something to pack: rows or images one after the other, or tars that stay what they are."""

    about: str
    """What it was taken for."""
    mapping: ColumnMapping
    images: ImageFiles | None = None
    table: Table | None = None
    tars: Sequence[Tar] = ()
    language: str | None = None
    used: set[str] = field(default_factory=set)
    """Files that a row has named so far."""
    others: Sequence[str] = ()
    """Columns that are neither image nor caption, and are kept beside them."""
    overlooked: Mapping[str, str] = field(default_factory=dict)
    """Those of them whose texts may be captions all the same -> their language."""

    def lines(self) -> list[str]:
        """What each column is taken for, for the one who is to agree."""
        kept = [f"kept in the json: {', '.join(self.others)}"] if self.others else []
        asked = [f"captions in {code} in {name}? then: --map {code}={name}" for name, code in self.overlooked.items()]
        return self.mapping.lines() + kept + asked

    def items(self) -> Iterator[Item]:
        """Every sample of what is no tar."""
        if self.table is not None:
            return row_items(self.table, self.mapping, self.images, self.used)
        assert self.images is not None
        return folder_items(self.images, self.language)

    def unnamed(self) -> list[str]:
        """Images of the folder that no row has named."""
        if self.table is None or self.images is None:
            return []
        return [path for path in self.images.paths if path not in self.used]


def open_source(
    place: str,
    *,
    table: str | None = None,
    images: str | None = None,
    given: ColumnMapping = ColumnMapping(),  # noqa: B008 (frozen)
    language: str | None = None,
    captions: bool = True,
) -> Source:
    """Find out what a place is, and which column is what.

    ``table``: the table of a folder of images; ``images``: the folder of a table; ``given``: columns that are known;
    ``language``: of captions that do not say it; ``captions``: whether there have to be some.

    Raises:
        CorpusError: there is nothing that can be packed, or it is not clear what it means.
        ConfigError: ``table`` or ``images`` would not be looked at.
    """
    location = Location.parse(place)
    is_folder = location.is_folder()
    if not is_folder and not _means_tars(place) and not is_table(place) and not location.exists():
        remedy = "Correct the path; a pattern needs quotes."
        raise CorpusError("neither a folder nor a table nor tars", where=place, got="nothing there", remedy=remedy)
    _refuse_unused(place, table, images, is_folder=is_folder)
    if is_folder and table is None and any(TAR_ENDING.search(each.name) for each in location.list()):
        return _of_tars([place], given, language, captions)
    if not is_folder and _means_tars(place):
        return _of_tars([place], given, language, captions)
    if not is_folder or (table is None and _is_dataset(location)):
        return _of_table(place, images or (place if is_folder else str(location.parent)), given, language, captions)
    folder = location.local_path
    table = table or _own_table(folder)
    if table is not None:
        return _of_table(table, place, given, language, captions)
    found = ImageFiles.find(folder)
    _require_images(found)
    return Source(f"a folder of {count_of(len(found.paths), 'image')}", given, found, language=language)


def _of_table(place: str, folder: str, given: ColumnMapping, language: str | None, captions: bool) -> Source:
    table = open_table(place)
    rows = list(islice(table.rows(on_bad=lambda _: None), _LOOKED_AT))
    if not rows:
        raise CorpusError("the table has no row that can be read", where=place)
    table.require(given.used())
    files = ImageFiles.find(Path(folder)) if Location.parse(folder).is_local else None
    _refuse_unnamed_columns(table, files)
    mapping = propose_mapping(
        rows, given, lambda said: bool(files and files.match(said)), language=language, captions=captions
    )
    said = [row.get(mapping.image or "") for row in rows]
    embedded = any(map(_has_bytes, said))
    if embedded and not any(_names_file(each, files) for each in said):
        files = None
    about = f"a table ({table})" + " with images in it" * embedded
    about += f" and the images in {folder}" if files or not embedded else ""
    others = _others(rows, mapping)
    overlooked = overlooked_captions(rows, mapping, others) if captions else {}
    return Source(about, mapping, files, table, language=language, others=others, overlooked=overlooked)


def _of_tars(patterns: Sequence[str], given: ColumnMapping, language: str | None, captions: bool) -> Source:
    tars, rows, damaged = expand_tars(patterns), list[Row](), DamagedTars()
    for tar in tars:
        with damaged.noted():
            rows = first_rows(tar, _LOOKED_AT)
        if rows:
            break
    if not rows:
        damaged.refuse()
        raise CorpusError("no sample in these tars: no image beside a json or txt", where=", ".join(patterns))
    if not given.captions and not given.text and TEXT_FIELD in rows[0].values and language:
        given = ColumnMapping(None, {language: TEXT_FIELD})
    mapping = propose_mapping(rows, given, None, language=language, captions=captions)
    return Source(count_of(len(tars), "tar"), mapping, tars=tars, language=language)


def _means_tars(place: str) -> bool:
    """Whether it is called as a tar is, or is a pattern that means tars alone."""
    if TAR_ENDING.search(place):
        return True
    if Location.parse(place).exists() or not has_wildcards(place):
        return False
    found = find(place)
    return bool(found) and all(TAR_ENDING.search(each.name) for each in found)


def open_tars(
    patterns: Sequence[str], *, given: ColumnMapping, language: str | None = None, captions: bool = True
) -> Source:
    """Several sources, which are tars, as a shell makes of a pattern; the arguments are those of ``open_source``.

    Raises:
        CorpusError: they are something else, or there is nothing that can be packed.
    """
    if others := [place for place in patterns if not _means_tars(place)]:
        remedy = "Give one folder or table at a time, each with an --out of its own."
        raise CorpusError("several sources are packed together only if all are tars", got=others[0], remedy=remedy)
    return _of_tars(patterns, given, language, captions)


def _refuse_unnamed_columns(table: Table, files: ImageFiles | None) -> None:
    """A first line that names a file of the folder is a row: taken for names, it would be lost."""
    said = next((name for name in table.columns if files and "." in name and files.match(name)), None)
    if said is not None:
        remedy = "Put a line with names above it, as `file,zh,en`."
        raise CorpusError("the first line holds no names of columns", where=table, got=f"{said}, a file", remedy=remedy)


def _refuse_unused(place: str, table: str | None, images: str | None, *, is_folder: bool) -> None:
    """Raises ConfigError where ``--table`` or ``--images`` would not be looked at."""
    if table is not None and not is_folder:
        raise ConfigError("the table of a folder, and this is none", where="--table", got=place, remedy=_ONE_TABLE)
    if images is not None and (is_folder or _means_tars(place)):
        raise ConfigError("the images of a table, and this is none", where="--images", got=place, remedy=_ONE_TABLE)


def _has_bytes(value: Any) -> bool:
    """Whether it is an image itself, and not the name of one."""
    return isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes))


def _names_file(value: Any, files: ImageFiles | None) -> bool:
    """Whether it is the name of a file of the folder, in a column where others are images themselves."""
    path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else value
    return isinstance(path, str) and files is not None and bool(files.match(path))


def _others(rows: Sequence[Row], mapping: ColumnMapping) -> list[str]:
    """Columns of which nothing is an image or a caption."""
    used = {name.split(".")[0] for name in mapping.used()} | set(mapping.used())
    return [name for name in dict.fromkeys(name for row in rows for name in row.values) if name not in used]


def _is_dataset(folder: Location) -> bool:
    """Whether it is what Hugging Face datasets keep on disk, or a folder of Parquet files.

    Raises:
        CorpusError: a dataset of several splits.
    """
    names = {entry.name for entry in folder.entries()}
    if "dataset_dict.json" in names:
        splits = ", ".join(sorted(name for name in names if (folder / name).is_folder()))
        raise CorpusError("a dataset of several splits", where=folder, expected=f"one of its folders: {splits}")
    return any(name.endswith((".arrow", ".parquet")) for name in names)


def _own_table(folder: Path) -> str | None:
    """The one table that lies in a folder of images."""
    found = sorted(path for path in folder.iterdir() if path.is_file() and is_table(path.name))
    found = [path for path in found if not path.name.startswith(".")]
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise CorpusError("several tables in the folder", where=folder, got=names, remedy="Choose one with --table.")
    return str(found[0]) if found else None


def _require_images(found: ImageFiles) -> None:
    if not found.paths:
        seen = ", ".join(f"{count} {kind}" for kind, count in found.others.most_common(5)) or "no files"
        raise CorpusError("no images in the folder", where=found.folder, got=seen)
