"""What nobody sees and nobody owns: stores that no counting record names, and records that do not count any more."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pea.cache.completion import CompletionRecord, read_summary
from pea.cache.publication import generation_name, generations, names_in
from pea.cache.record_shape import is_part_name
from pea.errors import ShardDamagedError, ShardUnfinishedError
from pea.storage.durable import TEMPORARY
from pea.storage.location import Location

_STORE = re.compile(r"(p[0-9]{3,7})[.-][A-Za-z0-9.-]*zarr")
_LEASE = re.compile(r"(?P<store>.+\.zarr)\.(0|[1-9][0-9]*)\.lease")


def part_of(name: str) -> str | None:
    """The part that a store, a lease or a temporary file of it belongs to, by its name."""
    match = _STORE.match(name.lstrip("."))
    return match.group(1) if match else None


def garbage_in(folder: Location) -> list[str]:
    """Names in the folder of a tar that no counting record names and no living lease owns.

    Where a record is damaged, nothing of its part is garbage. Looks at stores first, at leases then and at records
    last: a writer takes its lease before the store is there and gives it back after the record is.

    Raises:
        StorageError: the storage cannot be read.
    """
    from pea.storage.leases import living_below

    before = names_in(folder)
    owned = living_below(folder) if any(_LEASE.fullmatch(name) for name in before) else {}
    newest = generations(names_in(folder))
    named = {_record_name(part, numbers[-1]) for part, numbers in newest.items()}
    keep, unknown = set(owned), set()
    for part, numbers in newest.items():
        try:
            keep.add(str(read_summary(folder / generation_name(part, numbers[-1]))["store"]))
        except ShardUnfinishedError:
            continue
        except ShardDamagedError:
            unknown.add(part)
    return sorted(
        name
        for name in before
        if (_is_store(name) and name not in keep and part_of(name) not in unknown)
        or (_is_record(name) and name not in named)
        or (TEMPORARY in name and not _is_owned(name, owned))
        or ((lease := _LEASE.fullmatch(name)) and lease["store"] not in owned)
    )
