"""What is to be packed, one sample after the other: rows of a table, images of a folder, samples of tars.

An item knows where it comes from, its captions and its other columns, and how to get the bytes of its image; nothing
is read before it is asked for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_tools.corpus.column_names import ColumnMapping
from data_tools.corpus.image_bytes import MAX_FILE_BYTES, UnusableImageError
from data_tools.corpus.image_files import ImageFiles
from data_tools.corpus.item import Item, Problem
from data_tools.corpus.item_captions import take_caption, take_captions
from data_tools.corpus.other_columns import other_columns
from pea.corpus.captions import read_captions, read_json
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import MAX_JSON_BYTES
from pea.corpus.tables import BadRow, Row, Table
from pea.corpus.text_lines import encoding_of

_NO_FILE = "a link to nothing, a pipe, a socket or a device"
_NO_FOLDER = ", and no folder of images was looked into"
_START_BYTES = 4096


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
        detail = f"{value}: {', '.join(found[:3])}" if found else f"{value}{_NO_FOLDER if images is None else ''}"
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
            for each, caption in read_captions(document, {"*": "captions"}, (), set()).items():
                take_caption(item, each, caption)
        except BadSampleError as bad:
            raise ValueError(f"{bad.reason} {bad.detail}") from None
        item.columns |= other_columns(document, ColumnMapping(), item.notes)
    elif text.strip():
        if language is None:
            raise ValueError("its language is not said (--language)")
        take_caption(item, language, text.decode(encoding_of(text[:_START_BYTES])).strip())
