"""What a cache holds, told from its records: whether it changed, and whether its files are all there.

No array is read. Two caches whose rows are the same have one digest, however often their parts were made again, and
whatever reports lie beside them (totals, certificates, run summaries).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pea.cache.completion import CompletionRecord, read_record
from pea.cache.manifest import FILE_NAME, read_manifest
from pea.cache.reader import Cache
from pea.errors import CacheError, ShardUnfinishedError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.location import Location

_PROBLEMS_SHOWN = 3
_THREADS = 16
_Look = tuple[list[Any] | None, str | None]


@dataclass(frozen=True)
class CacheContent:
    """What a look at a cache's records finds."""

    digest: str
    """Of identity, plan, rows and removals; of what is missing too, so that damage is a change."""
    problems: tuple[str, ...]
    """What records name and is not there, or not of the size they say; damaged records. Not: parts still to be made."""


def is_cache(folder: Location) -> bool:
    """Whether a folder is one of a cache, damaged or not."""
    if (folder / "shards").is_folder() and (folder / FILE_NAME).exists():
        return True
    try:
        read_manifest(folder)
    except CacheError:
        return False
    return True


def cache_content(directory: Location) -> CacheContent:
    """Look at the records of a cache and at the sizes of the files that they name.

    Raises:
        CacheError: there is no cache, or its manifest or its removals are damaged.
        StorageError: it cannot be read.
    """
    cache = Cache(directory, read_manifest(directory))
    parts: dict[str, Any] = {}
    problems: list[str] = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="pea-look") as pool:
        found = list(cache.newest_records())
        for (plan, _), (rows, problem) in zip(found, pool.map(_look, [place for _, place in found]), strict=True):
            name = f"{plan.tar}/{plan.part}"
            parts |= {} if rows is None else {name: rows}
            problems += [] if problem is None else [f"{name}: {problem}"]
    content = {
        "identity": cache.identity.digest,
        "parts": [[plan.tar, plan.part, plan.kind, plan.draw_start, plan.draw_stop] for plan in cache.manifest.parts],
        "rows": parts,
        "removed": sorted(cache.removed()),
        "problems": problems,
    }
    return CacheContent(sha256_text(canonical_json(content)), tuple(problems))


def _look(place: Location | None) -> _Look:
    """The rows of a part (None: not finished), and what is wrong with it."""
    if place is None:
        return None, None
    try:
        record = read_record(place)
    except ShardUnfinishedError:  # it was withdrawn
        return None, None
    except CacheError as error:
        return None, str(error)
    missing = list(_missing(record, place.parent / record.store))
    if not missing:
        return _rows(record), None
    shown = ", ".join(missing[:_PROBLEMS_SHOWN]) + (", ..." if len(missing) > _PROBLEMS_SHOWN else "")
    return _rows(record), f"{len(missing)} of {len(record.files)} files missing or cut ({shown})"


def _rows(record: CompletionRecord) -> list[Any]:
    """What makes the rows of a part: not where they are stored, nor with which version of a library."""
    chunks = {name: entry.digest for name, entry in record.files.items() if "/c/" in name}
    dropped = sorted((key, reason) for key, reason, _ in record.dropped)
    return [record.summary["content"], chunks, record.kept, dropped]


def _missing(record: CompletionRecord, store: Location) -> Iterator[str]:
    """Files of the record that are not there, or have another size."""
    found = {entry.name: entry.status.size_bytes for entry in store.entries(recursive=True) if entry.status}
    return (name for name, entry in record.files.items() if found.get(name) != entry.size_bytes)
