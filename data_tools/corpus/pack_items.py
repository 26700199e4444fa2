"""What is to be packed, one sample after the other: rows of a table, images of a folder, samples of tars.

An item knows where it comes from, its captions and its other columns, and how to get the bytes of its image; nothing
is read before it is asked for.
"""

from __future__ import annotations

import html
import json
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.corpus.column_names import LANGUAGE, ColumnMapping
from data_tools.corpus.image_bytes import MAX_FILE_BYTES, UnusableImageError
from data_tools.corpus.image_files import ImageFiles
from data_tools.corpus.other_columns import other_columns
from pea.corpus.captions import read_captions, read_json
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import MAX_JSON_BYTES
from pea.corpus.tables import BadRow, Row, Table

_NO_FILE = "a link to nothing, a pipe, a socket or a device"
_ENCODER = json.JSONEncoder(default=repr)


PLACEHOLDERS = frozenset(
    ("nan", "NaN", "NULL", "None", "N/A", "n/a", "<NA>")
    + ("#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!")
)
"""What programs write where a cell is empty or wrong. In other letters it may be a word: German "null" is zero."""


@dataclass(frozen=True)
class Problem:
    """Why something is not packed."""

    reason: str
    detail: str = ""


@dataclass
class Item:
    """One sample to be packed."""

    where: str
    """Table and line, or path of the image: for the one who looks for it."""
    size: int
    """Bytes of the image, as far as that is known without reading it."""
    read: Callable[[], bytes]
    """Gives the bytes of the image; raises UnusableImageError."""
    captions: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    """Everything else that is known of it, for the json."""
    file: str = ""
    """Path of the image in its folder, where it has one."""
    problem: Problem | None = None
    respelled: bool = False
    """Whether the table spells the file's name otherwise than the disk."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of its captions, each to be counted."""

    def fingerprint(self) -> bytes:
        """What it would be packed from, without its bytes."""
        said = [self.where, self.size, self.file, self.captions, self.columns, self.problem and self.problem.reason]
        return _ENCODER.encode(said).encode()


def row_items(
    table: Table, mapping: ColumnMapping, images: ImageFiles | None, used: set[str] | None = None
) -> Iterator[Item]:
    """An item for each row, also for those that cannot be used. ``used`` is told each file that a row names."""
    root = f"{Path(table.files[0].where).parent.as_posix()}/"
    for row in _all_rows(table):
        where = f"{row.where.removeprefix(root)}:{row.number}"
        if isinstance(row, BadRow):
            yield Item(where, 0, bytes, problem=Problem("row_bad", row.problem))
            continue
        item = Item(where, 0, bytes)
        take_captions(item, row.get, mapping)
        item.columns = other_columns(row.values, mapping, item.notes)
        _take_image(item, row, mapping, images)
        if used is not None and item.file:
            used.add(item.file)
        yield item


def folder_items(images: ImageFiles, language: str | None) -> Iterator[Item]:
    """An item for each image of a folder, with the captions that lie beside it.

    ``photo.txt`` is in ``language``, ``photo.zh.txt`` in zh; ``photo.json`` holds captions by language in ``captions``.
    """
    for path in images.paths:
        item = _file_item(images, path)
        item.where = path
        stem = path.rpartition(".")[0]
        for name, said in images.texts_beside(stem, language):
            try:
                _take_text(item, images.folder / name, said)
            except (OSError, ValueError) as error:
                item.problem = Problem("caption_not_text", f"{name}: {error}"[:200])
        yield item


def _all_rows(table: Table) -> Iterator[Row | BadRow]:
    bad: list[BadRow] = []
    for row in table.rows(on_bad=bad.append):
        yield from bad
        bad.clear()
        yield row
    yield from bad


def take_captions(item: Item, get: Callable[[str], Any], mapping: ColumnMapping) -> None:
    """Give an item the captions that are in some columns, or say what is wrong with them."""
    columns = dict(mapping.captions)
    if mapping.text and mapping.language:
        said = get(mapping.language)
        code = str(said or "").strip()
        if LANGUAGE.fullmatch(code):
            columns[code] = mapping.text
        elif get(mapping.text):
            item.problem = Problem("language_unknown", f"{mapping.language}: {said!r}"[:200])
    for language, column in columns.items():
        value = get(column)
        value = next((each for each in value if each), None) if isinstance(value, list) else value
        if value is None:
            continue
        if not isinstance(value, str) or not _is_unicode(value):
            item.problem = Problem("caption_not_text", f"{column}: {value!r}"[:200])
        elif value.strip() in PLACEHOLDERS:
            item.notes.append("captions that are a placeholder (nan, NULL, N/A, #REF!, ...), taken for none")
        elif value.strip():
            _take_caption(item, language, value)


def _take_caption(item: Item, language: str, text: str) -> None:
    """Give an item a caption, unless it has nothing to be seen; what a person should know of it is noted."""
    if not text.isprintable():
        kinds = {unicodedata.category(char) for char in set(text) if not char.isspace()}
        if all(kind[0] in "CZ" for kind in kinds):
            item.notes.append("captions of control characters alone, taken for none")
            return
        if "Cc" in kinds:
            item.notes.append("captions with control characters, which `pea data clean` mends")
    item.captions[language] = text
    if "&" in text and html.unescape(text) != text:
        item.notes.append("captions with HTML entities, which `pea data clean` mends")


def _take_image(item: Item, row: Row, mapping: ColumnMapping, images: ImageFiles | None) -> None:
    value = row.get(mapping.image or "")
    if isinstance(value, Mapping):
        item.file = str(value.get("path") or "")
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        data = value
        item.size, item.read = len(data), lambda: data
        return
    if value is None or not str(value).strip():
        item.problem = Problem("image_not_named", f"{mapping.image}: nothing")
        return
    item.file = ""
    found = images.match(str(value)) if images else []
    if len(found) != 1:
        reason = "file_ambiguous" if found else "file_missing"
        detail = f"{value}: {', '.join(found[:3])}" if found else str(value)
        item.problem = Problem(reason, detail[:200])
        return
    assert images is not None
    of_file = _file_item(images, found[0])
    item.size, item.read, item.file = of_file.size, of_file.read, of_file.file
    item.problem = item.problem or of_file.problem
    item.respelled = found[0] != str(value)


def _file_item(images: ImageFiles, path: str) -> Item:
    place = f"{images.folder}/{path}"
    try:
        found = os.stat(place)
    except OSError as error:
        return Item(path, 0, bytes, file=path, problem=Problem("file_unreadable", f"{path}: {error.strerror}"))
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for a writer, and a device has no end
        return Item(path, 0, bytes, file=path, problem=Problem("file_unreadable", f"{path}: {_NO_FILE}"))
    size = found.st_size
    problem = Problem("file_too_large", f"{size} bytes") if size > MAX_FILE_BYTES else None
    return Item(path, size, lambda: _bytes_of(place), file=path, problem=problem)


def _bytes_of(place: str) -> bytes:
    try:
        with open(place, "rb", buffering=0) as file:  # noqa: PTH123 (a million times, and a Path takes longer)
            return file.read()
    except OSError as error:
        raise UnusableImageError("file_unreadable", error.strerror) from None


def _take_text(item: Item, path: Path, language: str | None) -> None:
    if not path.is_file():
        raise ValueError(_NO_FILE)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES} bytes")
    text = path.read_bytes()
    if path.suffix == ".json":
        try:
            document = read_json(text)
            item.captions |= read_captions(document, {"*": "captions"}, (), set())
        except BadSampleError as bad:
            raise ValueError(f"{bad.reason} {bad.detail}") from None
        item.columns |= other_columns(document, ColumnMapping(), item.notes)
    elif text.strip():
        if language is None:
            raise ValueError("its language is not said (--language)")
        _take_caption(item, language, text.decode("utf-8-sig").strip())


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
