"""Pack samples into tars, part by part; every row and file that was seen is packed, or is counted and named."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from data_tools.corpus.image_bytes import Packed, UnusableImageError, packed_image
from data_tools.corpus.item import Item, Problem
from data_tools.corpus.part_writer import TarWriter, new_tar
from pea.collect.overlap import map_in_threads
from pea.corpus.rules import MAX_JSON_BYTES
from pea.errors import CorpusError
from pea.storage.durable import write_text

REASONS = {
    "row_bad": "the row of the table cannot be read",
    "image_not_named": "the row names no image",
    "file_missing": "no file of the folder is what the row names",
    "file_ambiguous": "several files of the folder may be what the row names",
    "file_unreadable": "the file cannot be read: a broken link, no permission, or none of a disk",
    "file_too_large": "more than 1 GiB",
    "file_empty": "the image has no bytes",
    "image_missing": "no image beside the json",
    "image_ambiguous": "more than one image for one key",
    "image_unknown": "not an image of a kind that Pillow, as it is installed, can read",
    "image_undecodable": "the image is damaged",
    "image_too_large": "more pixels than Pillow decodes",
    "caption_missing": "no caption in any language",
    "caption_not_text": "a caption is no text, or its file is not UTF-8, or says no language",
    "language_unknown": "nothing, or no language, where the row should say that of its caption",
    "json_unreadable": "the json is not one JSON object",
    "json_too_large": "captions and columns are more than the 4 MiB of a json that the cache reads",
    "key_unusable": "the key occurs before in its tar, is too long, or is not UTF-8",
    "file_not_stored": "a link, a sparse file or a device in place of the file",
}
"""Why something is not packed."""
FORMAT, FORMAT_VERSION = "pea-pack", 1
RECORD_ENDING = ".pack.json"
_MAX_NAMED = 1000
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class PackOptions:
    """How images and captions are packed."""

    shorter_side_px: int | None = None
    """Larger images are made smaller, to this shorter side."""
    verify: bool = False
    """Decode every image in full."""
    captions: bool = True
    """Whether a sample needs a caption."""


@dataclass
class PackCounts:
    """What became of what was seen: ``seen == packed + sum(dropped)``."""

    seen: int = 0
    packed: int = 0
    num_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    captions: Counter[str] = field(default_factory=Counter)
    respelled: int = 0
    named: list[tuple[str, str, str]] = field(default_factory=list)
    """(where, reason, detail) of what was dropped; at most a thousand for each part."""

    def add(self, other: PackCounts) -> None:
        """Count another part as well; names stay in its record."""
        self.seen, self.packed = self.seen + other.seen, self.packed + other.packed
        self.num_bytes, self.respelled = self.num_bytes + other.num_bytes, self.respelled + other.respelled
        self.dropped += other.dropped
        self.changes += other.changes
        self.captions += other.captions
        self.named += other.named[: max(0, _MAX_NAMED - len(self.named))]

    def to_json(self) -> dict[str, Any]:
        """For a record."""
        plain = {"seen": self.seen, "packed": self.packed, "num_bytes": self.num_bytes, "respelled": self.respelled}
        counters = {"dropped": self.dropped, "changes": self.changes, "captions": self.captions}
        return plain | {name: dict(sorted(each.items())) for name, each in counters.items()} | {"named": self.named}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> PackCounts:
        """Of a record."""
        plain = {name: int(said[name]) for name in ("seen", "packed", "num_bytes", "respelled")}
        counters = {name: Counter(said[name]) for name in ("dropped", "changes", "captions")}
        return cls(**plain, **counters, named=[tuple(each) for each in said["named"]])


@dataclass(frozen=True)
class PackedPart:
    """One part, and whether it was there already."""

    name: str
    counts: PackCounts
    was_there: bool


def pack_rows(
    items: Iterable[Item], out: Path, name: str, rows_per_tar: int, options: PackOptions
) -> Iterator[PackedPart]:
    """Pack items in their order, so many to a tar; parts that are there are passed over.

    A sample's key is its number in the whole source, so that it does not depend on what is dropped before it.

    Raises:
        CorpusError: what is there was packed from something else.
        DiskFullError: there is no room.
    """
    source, index = iter(items), 0
    while (first := next(source, None)) is not None:
        part = f"{name}-{index:05d}"
        rows = chain([first], islice(source, rows_per_tar - 1))
        keyed = ((f"{index * rows_per_tar + place:09d}", item) for place, item in enumerate(rows))
        yield pack_part(keyed, out, part, options)
        index += 1
    _refuse_further_parts(out, name, index)


def pack_part(
    keyed: Iterable[tuple[str, Item]], out: Path, part: str, options: PackOptions, made_of: str | None = None
) -> PackedPart:
    """Pack one tar, unless it is there; one of which nothing was packed is tried again.

    ``made_of``: says what the items come from, so that those of a finished part need not be looked at.

    Raises:
        CorpusError: what is there was packed from something else.
        DiskFullError: there is no room.
    """
    tar, record = out / f"{part}.tar", out / f"{part}{RECORD_ENDING}"
    found = _read_record(record)
    digest = _Fingerprint(options, made_of)
    if found is not None and found["counts"]["packed"]:
        for key, item in keyed if made_of is None else ():
            digest.add(key, item)
        _compare(record, found, digest.hexdigest())
        counts = PackCounts.from_json(found["counts"])
        if tar.is_file():
            return PackedPart(part, counts, was_there=True)
        raise CorpusError("the tar of a finished part is not there", where=tar, remedy=f"Delete {record} as well.")
    counts = PackCounts()
    threads = len(os.sched_getaffinity(0)) if options.shorter_side_px or options.verify else 1  # copying needs one
    with new_tar(tar) as writer, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        for key, item, image in map_in_threads(partial(_prepared, options), keyed, threads):
            digest.add(key, item)
            _pack_item(writer, key, item, image, counts)
    counts.num_bytes = tar.stat().st_size if counts.packed else 0
    assert counts.seen == counts.packed + counts.dropped.total()
    said = {"format": FORMAT, "format_version": FORMAT_VERSION, "fingerprint": digest.hexdigest()}
    write_text(record, json.dumps(said | {"counts": counts.to_json()}, ensure_ascii=False) + "\n")
    return PackedPart(part, counts, was_there=False)


def _prepared(options: PackOptions, keyed: tuple[str, Item]) -> tuple[str, Item, Packed | Problem]:
    """The image of an item as it goes into the tar, or why it does not."""
    key, item = keyed
    if item.problem:
        return key, item, item.problem
    if options.captions and not item.captions:
        return key, item, Problem("caption_missing")
    try:
        return key, item, packed_image(item.read(), shorter_side_px=options.shorter_side_px, verify=options.verify)
    except UnusableImageError as problem:
        return key, item, Problem(problem.reason, problem.detail)


def _pack_item(writer: TarWriter, key: str, item: Item, image: Packed | Problem, counts: PackCounts) -> None:
    counts.seen += 1
    counts.changes.update(item.notes)
    text = b"" if isinstance(image, Problem) else _json_of(item, image)
    if len(text) > MAX_JSON_BYTES:
        image = Problem("json_too_large", f"{len(text)} bytes")
    if isinstance(image, Problem):
        counts.dropped[image.reason] += 1
        if len(counts.named) < _MAX_NAMED:
            counts.named.append((item.where, image.reason, image.detail))
        return
    writer.add(key, {image.extension: image.data, "json": text})
    counts.packed += 1
    counts.respelled += item.respelled
    counts.changes.update(image.changes)
    counts.captions.update(item.captions.keys())


def _json_of(item: Item, image: Packed) -> bytes:
    document: dict[str, Any] = {**item.columns, "captions": item.captions}
    if item.file:
        document["file"] = item.file
    if image.original_size:
        document |= {"original_height": image.original_size[0], "original_width": image.original_size[1]}
    return _ENCODER.encode(document).encode("utf-8", "backslashreplace")


class _Fingerprint:
    """What a part is packed from: every item, in order, or what is said of all of them."""

    def __init__(self, options: PackOptions, made_of: str | None) -> None:
        self._of_items = made_of is None
        self._sha256 = hashlib.sha256(f"{options}\0{made_of or ''}".encode())

    def add(self, key: str, item: Item) -> None:
        if self._of_items:
            self._sha256.update(key.encode("utf-8", "backslashreplace") + item.fingerprint() + b"\n")

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] == FORMAT and found["format_version"] == FORMAT_VERSION and found["counts"]["seen"]:
            return dict(found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise CorpusError("not a record of packing", where=path, remedy="Delete it, and its part is packed again.")


def _compare(record: Path, found: dict[str, Any], fingerprint: str) -> None:
    if found["fingerprint"] != fingerprint:
        raise CorpusError(
            "this part was packed from other rows, files or options",
            where=record,
            remedy="Choose another --out; or delete this record and its tar to have the part packed again.",
        )


def _refuse_further_parts(out: Path, name: str, count: int) -> None:
    further = sorted(
        path.name for path in out.glob(f"{name}-*{RECORD_ENDING}") if path.name >= f"{name}-{count:05d}{RECORD_ENDING}"
    )
    if further:
        raise CorpusError(
            "parts of a longer source are here",
            where=out,
            got=", ".join(further[:3]),
            remedy="Choose another --out, or delete them with their tars.",
        )


__all__ = ["Item", "PackCounts", "PackOptions", "PackedPart", "Problem", "pack_part", "pack_rows"]
