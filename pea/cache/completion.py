"""The completion record: what makes one part of a shard finished.

A JSON file beside the stores of its tar, created last; it names the store that counts. Its first line holds the summary
with a digest of its own, so that a tool reads the summaries of many shards quickly; its last field is the digest of all
the rest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pea.cache.record_shape import check_record, check_summary
from pea.cache.schema import FORMAT_VERSION
from pea.cache.strict_json import parse, read_at_most
from pea.errors import LocationMissingError, ShardDamagedError, ShardUnfinishedError
from pea.storage.digests import RunningDigest, canonical_json, sha256_text
from pea.storage.location import Location

_HEAD_BYTES = 16 << 10
_MOST_SUMMARY_BYTES = 4 << 20
_MOST_RECORD_BYTES = 64 << 20
_BLOCK_BYTES = 4 << 20
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
        """Name of the zarr folder beside the record."""
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
    files: Mapping[str, FileEntry],
    kept: dict[str, list[str]],
    dropped: list[tuple[str, str, str]],
) -> CompletionRecord:
    """Complete a record; ``files``: every file of the store, as it was written."""
    raw = summary["arrays"]
    complete = {
        "format_version": FORMAT_VERSION,
        **summary,
        "num_samples": sum(map(len, kept.values())),
        "num_bytes": sum(entry.size_bytes for entry in files.values()),
        "arrays": {name: [raw.get(name, size), size] for name, size in _stored_bytes(files).items()},
        "dropped": dict(sorted(Counter(reason for _, reason, _ in dropped).items())),
    }
    return CompletionRecord(complete, dict(sorted(files.items())), kept, dropped)


def withdrawal(tar: str, part: str, reason: str) -> CompletionRecord:
    """The record that takes a part's finished state away, so that the next run makes it again."""
    summary = {"format_version": FORMAT_VERSION, "tar": tar, "part": part, "withdrawn": reason}
    return CompletionRecord(summary, {}, {}, [])


def _stored_bytes(files: Mapping[str, FileEntry]) -> dict[str, int]:
    """Compressed size per array, over all buckets."""
    sizes: Counter[str] = Counter()
    for path, entry in files.items():
        array, chunks, _ = path.partition("/c/")
        if chunks:
            sizes[array.partition("/")[2]] += entry.size_bytes
    return dict(sorted(sizes.items()))


def has_digest(path: Location, digest: str) -> bool:
    """Whether a stored file has a digest; older caches hold the sha256 of every file."""
    found = RunningDigest(digest)
    with path.open_stream() as stream:
        while block := stream.read(_BLOCK_BYTES):
            found.add(block)
    return found.hex() == digest


def record_to_bytes(record: CompletionRecord) -> bytes:
    """The file of a record."""
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
    return f'{text},\n"sha256":"{sha256_text(text)}"}}\n'.encode()


def read_summary(path: Location) -> dict[str, Any]:
    """Only the summary of a record: quick, and checked by its own digest.

    Raises:
        ShardUnfinishedError: there is no record, or it takes the finished state away.
        ShardDamagedError: the first line is not what was written.
        StorageError: the storage cannot be read.
    """
    try:
        line = path.read_bytes(0, _HEAD_BYTES)
        if b"\n" not in line and len(line) == _HEAD_BYTES:
            line = path.read_bytes(0, _MOST_SUMMARY_BYTES)
        line = line[: line.find(b"\n") + 1]
        text, _, tail = line.partition(b',"summary_sha256":"')
        text = text.removeprefix(b'{"summary":')
        if tail != hashlib.sha256(text).hexdigest().encode() + b'",\n':
            raise ValueError("other bytes than were written")
        summary: dict[str, Any] = parse(text)
        check_summary(summary)
    except LocationMissingError:
        raise _unfinished(path) from None
    except ValueError as error:
        raise _damaged(path, error) from None
    if "withdrawn" in summary:
        raise _unfinished(path)
    return summary


def read_record(path: Location) -> CompletionRecord:
    """A whole record.

    Raises:
        ShardUnfinishedError: there is no record, or it takes the finished state away.
        ShardDamagedError: it is not what was written, or says what cannot be.
        StorageError: the storage cannot be read.
    """
    try:
        data = read_at_most(path, _MOST_RECORD_BYTES)
        record = record_from_bytes(data)
    except LocationMissingError:
        raise _unfinished(path) from None
    except ValueError as error:
        raise _damaged(path, error) from None
    if "withdrawn" in record.summary:
        raise _unfinished(path)
    return record


def record_from_bytes(data: bytes) -> CompletionRecord:
    """The record in a file.

    Raises:
        ValueError: it is not what was written, or says what cannot be.
    """
    body, _, tail = data.decode("utf-8").rpartition(',\n"sha256":"')
    if tail != sha256_text(body) + '"}\n':
        raise ValueError("other bytes than were written")
    raw = parse(body + "}")
    check_record(raw)
    files = {name: FileEntry(size, digest) for name, (size, digest) in raw["files"].items()}
    dropped = [(key, reason, detail) for key, reason, detail in raw["dropped"]]
    return CompletionRecord(raw["summary"], files, raw["kept"], dropped)


def _unfinished(path: object) -> ShardUnfinishedError:
    return ShardUnfinishedError("the shard is not finished", where=path, remedy="Run `pea cache` to complete it.")


def _damaged(path: object, got: object) -> ShardDamagedError:
    return ShardDamagedError("the completion record is damaged", where=path, got=got, remedy=_REMEDY)
