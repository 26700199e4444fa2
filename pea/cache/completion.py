"""The completion record: what makes one part of a shard finished.

A JSON file ``<part>.json`` beside ``<part>.zarr``, written last. Its first line holds the summary with a
digest of its own, so that a tool reads the summaries of many shards quickly; its last field is the digest of
all the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pea.cache.schema import FORMAT_VERSION
from pea.errors import ShardDamagedError, ShardUnfinishedError
from pea.storage.digests import canonical_json, crc32_file, sha256_file, sha256_text
from pea.storage.durable import atomic_write

_HEAD_BYTES = 16 << 10
_SHA256_LENGTH = 64
_REMEDY = "Run `pea inspect check --repair`, then `pea cache` again."


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the store."""

    size_bytes: int
    digest: str
    """Of a chunk file its CRC-32, of metadata their sha256."""


@dataclass(frozen=True)
class CompletionRecord:
    """What one finished part of a shard contains."""

    summary: dict[str, Any]
    """Counts and sizes; see ``make_record``."""
    files: dict[str, FileEntry]
    """Path inside the store -> size and digest; every file of the store."""
    kept: dict[str, list[str]]
    """Bucket -> keys, in the order of the rows."""
    dropped: list[tuple[str, str, str]]
    """(key, reason, detail) of every sample that was left out."""

    @property
    def tar(self) -> str:
        """Name of the tar."""
        return str(self.summary["tar"])

    @property
    def part(self) -> str:
        """Name of the part."""
        return str(self.summary["part"])

    @property
    def store(self) -> str:
        """Name of the zarr directory beside the record."""
        return str(self.summary["store"])

    @property
    def num_samples(self) -> int:
        """Samples kept."""
        return int(self.summary["num_samples"])

    @property
    def num_records(self) -> int:
        """Records kept."""
        return int(self.summary["num_records"])

    @property
    def num_bytes(self) -> int:
        """Size of the store's files."""
        return int(self.summary["num_bytes"])


def make_record(
    summary: Mapping[str, Any],
    store: Path,
    kept: dict[str, list[str]],
    dropped: list[tuple[str, str, str]],
) -> CompletionRecord:
    """Complete a record by reading back and digesting every file of the store."""
    files = list_files(store)
    raw = summary["arrays"]
    complete = {
        "format_version": FORMAT_VERSION,
        **summary,
        "num_samples": sum(map(len, kept.values())),
        "num_bytes": sum(entry.size_bytes for entry in files.values()),
        "arrays": {name: [raw.get(name, size), size] for name, size in _stored_bytes(files).items()},
        "dropped": dict(sorted(Counter(reason for _, reason, _ in dropped).items())),
    }
    return CompletionRecord(complete, files, kept, dropped)


def _stored_bytes(files: Mapping[str, FileEntry]) -> dict[str, int]:
    """Compressed size per array, over all buckets."""
    sizes: Counter[str] = Counter()
    for path, entry in files.items():
        array, chunks, _ = path.partition("/c/")
        if chunks:
            sizes[array.partition("/")[2]] += entry.size_bytes
    return dict(sorted(sizes.items()))


def list_files(store: Path) -> dict[str, FileEntry]:
    """Size and digest of every file below a directory, by relative path."""
    found = {}
    for directory, _, names in os.walk(store):
        for name in names:
            path = Path(directory, name)
            found[path.relative_to(store).as_posix()] = FileEntry(path.stat().st_size, file_digest(path))
    return dict(sorted(found.items()))


def file_digest(path: Path) -> str:
    """What ``FileEntry`` holds of a file."""
    return sha256_file(path) if path.name == "zarr.json" else crc32_file(path)


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file has a digest; older caches hold the sha256 of every file."""
    return digest == (sha256_file(path) if len(digest) == _SHA256_LENGTH else crc32_file(path))


def write_record(path: Path, record: CompletionRecord) -> None:
    """Publish a record atomically: from here on the part is finished."""
    body = {
        "files": {name: [entry.size_bytes, entry.digest] for name, entry in record.files.items()},
        "kept": record.kept,
        "dropped": record.dropped,
    }
    summary = canonical_json(record.summary)
    lines = [
        f'{{"summary":{summary},"summary_sha256":"{sha256_text(summary)}"',
        *(f'"{name}":{canonical_json(value)}' for name, value in body.items()),
    ]
    text = ",\n".join(lines)
    atomic_write(path, f'{text},\n"sha256":"{sha256_text(text)}"}}\n'.encode())


def read_summary(path: Path | str) -> dict[str, Any]:
    """Only the summary of a record: quick, and checked by its own digest.

    Raises:
        ShardUnfinishedError: there is no record.
        ShardDamagedError: the first line is not what was written.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            line = os.read(descriptor, _HEAD_BYTES)
            while b"\n" not in line and (more := os.read(descriptor, _HEAD_BYTES)):
                line += more
        finally:
            os.close(descriptor)
        line = line[: line.find(b"\n") + 1]
        text, _, tail = line.partition(b',"summary_sha256":"')
        text = text.removeprefix(b'{"summary":')
        summary: dict[str, Any] = json.loads(text)
        intact = tail == hashlib.sha256(text).hexdigest().encode() + b'",\n'
    except FileNotFoundError:
        raise _unfinished(path) from None
    except (ValueError, KeyError, TypeError, OSError):
        intact = False
    if not intact:
        raise ShardDamagedError("the completion record is damaged", where=path, remedy=_REMEDY)
    return summary


def read_record(path: Path) -> CompletionRecord:
    """A whole record.

    Raises:
        ShardUnfinishedError: there is no record.
        ShardDamagedError: it is not what was written.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        body, _, tail = text.rpartition(',\n"sha256":"')
        if tail != sha256_text(body) + '"}\n':
            raise ValueError("digest")
        raw = json.loads(body + "}")
        return CompletionRecord(
            raw["summary"],
            {name: FileEntry(size, digest) for name, (size, digest) in raw["files"].items()},
            raw["kept"],
            [(key, reason, detail) for key, reason, detail in raw["dropped"]],
        )
    except FileNotFoundError:
        raise _unfinished(path) from None
    except (ValueError, KeyError, TypeError, OSError):
        raise ShardDamagedError("the completion record is damaged", where=path, remedy=_REMEDY) from None


def _unfinished(path: Path | str) -> ShardUnfinishedError:
    return ShardUnfinishedError("the shard is not finished", where=path, remedy="Run `pea cache` to complete it.")
