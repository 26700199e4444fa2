"""What a cache holds, told from its records: whether it changed, and whether its files are all there.

No array is read. Two caches whose rows are the same have one digest, however often their parts were made again, and
whatever reports lie beside them (totals, certificates, run summaries).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pea.cache.completion import CompletionRecord, read_record
from pea.cache.manifest import FILE_NAME, PartPlan, read_manifest
from pea.cache.reader import Cache
from pea.cache.removals import read_removed
from pea.errors import CacheError, ShardUnfinishedError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.location import Location

_PROBLEMS_SHOWN = 3


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
        read_manifest(Path(folder))
    except CacheError:
        return False
    return True


def cache_content(directory: Location) -> CacheContent:
    """Look at the records of a cache and at the sizes of the files that they name.

    Raises:
        CacheError: there is no cache, or its manifest or its removals are damaged.
        StorageError: it cannot be read.
    """
    cache = Cache(Path(directory), read_manifest(Path(directory)))
    parts: dict[str, Any] = {}
    problems: list[str] = []
    for plan in cache.manifest.parts:
        name = f"{plan.tar}/{plan.part}"
        try:
            record, store = _record(cache, plan)
            missing = list(_missing(record, store))
        except ShardUnfinishedError:
            continue
        except CacheError as error:
            problems.append(f"{name}: {error}")
            continue
        parts[name] = _rows(record)
        if missing:
            shown = ", ".join(missing[:_PROBLEMS_SHOWN]) + (", ..." if len(missing) > _PROBLEMS_SHOWN else "")
            problems.append(f"{name}: {len(missing)} of {len(record.files)} files missing or cut ({shown})")
    content = {
        "identity": cache.identity.digest,
        "parts": [[plan.tar, plan.part, plan.kind, plan.draw_start, plan.draw_stop] for plan in cache.manifest.parts],
        "rows": parts,
        "removed": _removed(cache),
        "problems": problems,
    }
    return CacheContent(sha256_text(canonical_json(content)), tuple(problems))


def _record(cache: Cache, plan: PartPlan) -> tuple[CompletionRecord, Location]:
    """The completion record of a part, and the store that it names."""
    place = cache.record_path(plan)
    record = read_record(place)
    return record, Location.parse(place.parent / record.store)


def _removed(cache: Cache) -> Any:
    return read_removed(cache.directory)


def _rows(record: CompletionRecord) -> list[Any]:
    """What makes the rows of a part: not where they are stored, nor with which version of a library."""
    chunks = {name: entry.digest for name, entry in record.files.items() if "/c/" in name}
    dropped = sorted((key, reason) for key, reason, _ in record.dropped)
    return [record.summary["content"], chunks, record.kept, dropped]


def _missing(record: CompletionRecord, store: Location) -> Iterator[str]:
    """Files of the record that are not there, or have another size."""
    found = {entry.name: entry.status.size_bytes for entry in store.entries(recursive=True) if entry.status}
    return (name for name, entry in record.files.items() if found.get(name) != entry.size_bytes)
