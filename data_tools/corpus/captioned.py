"""The captions of a corpus, unit by unit: of tars, without a look at their images, or of a table.

A unit is a tar, or some thousand rows of a table. Whatever is done to captions is done unit by unit, and what is
finished of it is not done again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from pea.corpus.archive import Member
from pea.corpus.captions import read_captions, read_json
from pea.corpus.grouping import Content, Group, Unread, key_groups, key_problem, shown_key
from pea.corpus.places import Tar, expand_tars
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import EXTENSIONS, JSON, MAX_JSON_BYTES, extensions_of
from pea.corpus.sidecars import TAR_ENDING
from pea.corpus.tables import BadRow, Row, is_table, open_table
from pea.corpus.tars import open_tar, size_of
from pea.errors import CorpusError, TarUnusableError
from pea.foreign_text import file_name
from pea.storage.location import Location

IMAGES = extensions_of(tuple(EXTENSIONS))
ALL_CAPTIONS = {"*": "captions"}
_FIELD = "captions of these columns"


@dataclass(frozen=True)
class Captioned:
    """The captions of one sample, or of one row of a table that has no images."""

    tar: str
    """Name of the tar; empty for a row without one."""
    key: str
    """WebDataset ``__key__``; of a row without a tar, its id, if it has one."""
    captions: dict[str, str]
    """Language -> caption; no empty ones."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Language -> where the caption is from, as ``translation: ...``; nothing for what a person wrote."""
    scores: dict[str, float] = field(default_factory=dict)
    """Numbers that stand beside the captions, by name."""

    @property
    def names(self) -> dict[str, str]:
        """The columns that say which sample it is."""
        names = {"tar": self.tar, "key": self.key} if self.tar else {"id": self.key}
        return {name: value for name, value in names.items() if value}


@dataclass(frozen=True)
class Unusable:
    """A sample whose captions cannot be read, and why."""

    key: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Unit:
    """A tar, or a part of a table."""

    name: str
    """A file name that no other unit has."""
    source: str
    """What it is made of, and its size: when this changes, what was done to the unit is done again."""
    where: Tar | list[Row | BadRow]
    """The tar, or the rows."""

    def rows(self, fields: Mapping[str, str], scores: Sequence[str] = ()) -> Iterator[Captioned | Unusable]:
        """Every sample, usable or not. ``fields``: language -> dotted field; ``scores``: fields with numbers.

        Raises:
            CorpusError: the tar is damaged.
        """
        if isinstance(self.where, Tar):
            yield from _tar_rows(self.where, fields, scores)
            return
        for row in self.where:
            if isinstance(row, BadRow):
                yield Unusable(str(row), "row_unreadable", row.problem)
            else:
                yield _of_row(row, fields, scores)


def units_of(places: Sequence[str], rows_per_part: int) -> Iterator[Unit]:
    """The units of tars or of tables, in one pass; a table is cut into parts of so many rows.

    Raises:
        CorpusError: nothing is there, tars and tables are mixed, or two units have one name.
    """
    tables = [place for place in places if _is_table(place)]
    if tables and len(tables) != len(places):
        raise CorpusError(
            "tars and tables cannot be one corpus", got=", ".join(places), remedy="Give one kind at a time."
        )
    if not tables:
        for tar in expand_tars(places):
            yield Unit(file_name(tar.name), f"{tar}, {_size_said(tar)}", tar)
        return
    files = open_table(tables).files
    stems = [Location.parse(file.where).name.partition(".")[0] for file in files]
    if twice := [stem for stem, times in Counter(stems).items() if times > 1]:
        raise CorpusError("two tables have one name", got=twice[0], remedy="Give each a name of its own.")
    for stem, file in zip(stems, files, strict=True):
        size_bytes = Location.parse(file.where).status().size_bytes
        yield from _table_units(stem, f"{file.where}, {size_bytes} bytes", file.rows(()), rows_per_part)


def _size_said(tar: Tar) -> str:
    """The size of a tar; of one that cannot be looked at, reading it says what is wrong."""
    try:
        return f"{size_of(tar)} bytes"
    except TarUnusableError:
        return "unusable"


def _table_units(stem: str, source: str, rows: Iterator[Row | BadRow], rows_per_part: int) -> Iterator[Unit]:
    """The parts of one file; one that is called as the tar of its first row stays in one piece, and keeps its name."""
    first = list(islice(rows, 1))
    if isinstance(row := next(iter(first), None), Row) and stem == file_name(str(row.get("tar") or "")):
        yield Unit(stem, source, [*first, *rows])
        return
    whole = chain(first, rows)
    for number in count(0):
        part = list(islice(whole, rows_per_part))
        if not part:
            return
        yield Unit(file_name(f"{stem}-{number:05d}"), f"{source}, rows {rows_per_part}", part)


def _is_table(place: str) -> bool:
    """Whether a path, a pattern or a folder is one of tables."""
    if is_table(place):
        return True
    folder = Location.parse(place)
    names = [entry.name for entry in folder.entries()] if folder.is_folder() else []
    tables, tars = [name for name in names if is_table(name)], [name for name in names if TAR_ENDING.search(name)]
    if tables and tars:
        patterns = " or ".join(f"{place}/*{Path(found[0]).suffix}" for found in (tars, tables))
        remedy = f"Say which are meant by a pattern: {patterns}."
        raise CorpusError("tars and tables in one folder", where=place, got=f"{tars[0]} and {tables[0]}", remedy=remedy)
    return bool(tables)


def _tar_rows(tar: Tar, fields: Mapping[str, str], scores: Sequence[str]) -> Iterator[Captioned | Unusable]:
    with open_tar(tar) as opened:
        for group in key_groups(opened.members, IMAGES, _content):
            key = shown_key(group.key)
            try:
                if problem := opened.seen.note(group) or key_problem(group.key):
                    raise BadSampleError(problem, group.extensions)
                yield _of_document(tar.name, key, _document(group), fields, scores)
            except BadSampleError as bad:
                yield Unusable(key, bad.reason, bad.detail)
        opened.finish()


def _content(member: Member, _key: str) -> Content:
    """The bytes of a json; of an image, nothing is read."""
    if member.kind != "file":
        return Unread("file_not_stored", f"{member.name!a}: {member.kind}"[:200])
    if not member.name.lower().endswith(f".{JSON}"):
        return Unread("")
    return (
        member.read() if member.size_bytes <= MAX_JSON_BYTES else Unread("file_too_large", f"{member.size_bytes} bytes")
    )


def _document(group: Group) -> dict[str, Any]:
    content = group.files.get(JSON)
    if content is None:
        raise BadSampleError("json_missing", group.extensions)
    if len(group.files) == 1:
        raise BadSampleError("image_missing", group.extensions)
    for each in group.files.values():
        if isinstance(each, Unread) and each.reason:
            raise BadSampleError(each.reason, each.detail)
    assert isinstance(content, bytes)
    return read_json(content)


def _of_row(row: Row, fields: Mapping[str, str], scores: Sequence[str]) -> Captioned | Unusable:
    document = dict(row.values) | {name: row.get(name) for name in (*scores, "provenance")}
    if "*" not in fields:  # a column may have dots in its name
        document[_FIELD] = {language: row.get(name) for language, name in fields.items()}
        fields = {"*": _FIELD}
    try:
        tar, key = row.text("tar") or "", row.text("key") or row.text("id") or ""
    except CorpusError as error:
        return Unusable(str(row), "row_unreadable", str(error))
    try:
        if tar and not key:
            raise BadSampleError("key_missing")
        if problem := key_problem(key):
            raise BadSampleError(problem)
        return _of_document(tar, key, document, fields, scores)
    except BadSampleError as bad:
        return Unusable(f"{tar}/{shown_key(key)}" if key else str(row), bad.reason, bad.detail)


def _of_document(
    tar: str, key: str, document: Mapping[str, Any], fields: Mapping[str, str], scores: Sequence[str]
) -> Captioned:
    """Raises BadSampleError where a caption is no text."""
    captions = read_captions(document, fields, (), set())
    origins = document.get("provenance")
    provenance = {name: str(text) for name, text in origins.items() if text} if isinstance(origins, Mapping) else {}
    numbers = {name: read_field(document, name) for name in scores}
    found = {name: float(value) for name, value in numbers.items() if isinstance(value, int | float)}
    return Captioned(tar, key, captions, provenance, found)


def read_field(document: Any, name: str) -> Any:
    """A field by its own name, or, where none has it, by the dots in it; None: missing."""
    if isinstance(document, Mapping) and name in document:
        return document[name]
    for part in name.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document
