"""What nobody sees and nobody owns: stores that no counting record names, and records that do not count any more."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pea.cache.completion import read_summary
from pea.cache.publication import generation_name, generations, names_in
from pea.cache.removals import FOLDER
from pea.errors import ShardDamagedError, ShardUnfinishedError
from pea.storage.durable import TEMPORARY
from pea.storage.location import Location
from pea.storage.temporaries import left_by_the_dead

_OF_A_PART = re.compile(r"\.?(?P<part>p[0-9]{3,7})[.-].+")
_LEASE = re.compile(r"(?P<store>.+\.zarr)\.(0|[1-9][0-9]*)\.lease")


def part_of(name: str) -> str | None:
    """The part that something in the folder of a tar belongs to, by its name; None: to none."""
    match = _OF_A_PART.fullmatch(name)
    return match["part"] if match else None


def garbage_in(folder: Location) -> list[str]:
    """Names in the folder of a tar that no counting record names and no living lease owns.

    Where the counting record is damaged, nothing of its part is garbage. What a dead process left of a look at the
    store's clock belongs to no part. Stores are looked at first, leases then, and
    records last: a writer takes its lease before there is a store, and gives it back after there is a record.

    Raises:
        StorageError: the storage cannot be read.
    """
    before = names_in(folder)
    owned = _living_stores(folder, before)
    busy = {part_of(store) for store in owned}
    kept, unknown = set(owned), set()
    for part, numbers in generations(names_in(folder)).items():
        record = generation_name(part, numbers[-1])
        kept.add(record)
        try:
            kept.add(str(read_summary(folder / record)["store"]))
        except ShardUnfinishedError:
            continue
        except ShardDamagedError:
            unknown.add(part)
    found = {name for name in before if _is_garbage(name, kept, unknown, owned, busy)}
    return sorted(found.union(name for name in left_by_the_dead(folder, before) if part_of(name) is None))


def _is_garbage(name: str, kept: set[str], unknown: set[str], owned: Iterable[str], busy: set[str | None]) -> bool:
    part = part_of(name)
    if part is None or part in unknown or name in kept:
        return False
    if TEMPORARY in name:
        return part not in busy
    lease = _LEASE.fullmatch(name)
    return lease is None or lease["store"] not in owned


def _living_stores(folder: Location, names: Iterable[str]) -> set[str]:
    if not any(_LEASE.fullmatch(name) for name in names):
        return set()
    from pea.storage.leases import living_below  # pydantic is slow to import, and few folders hold a lease

    return set(living_below(folder))


def clear_garbage(folder: Location, part: str | None = None) -> list[str]:
    """Delete what is garbage in the folder of a tar; ``part``: of this part only. Returns the names.

    Records go last and the oldest first, so that after a crash no older one counts.

    Raises:
        StorageError: it cannot be deleted.
    """
    found = [name for name in garbage_in(folder) if part is None or part_of(name) in (None, part)]
    ages = {generation_name(name, number): number for name, numbers in generations(found).items() for number in numbers}
    for name in sorted(found, key=lambda name: (name in ages, ages.get(name, 0))):
        (folder / name).delete_tree()
    return found


def clear_temporaries(directory: Location) -> None:
    """Delete what dead writers of single files left: of the manifest, of reports, of removals.

    Raises:
        StorageError: one cannot be deleted.
    """
    for folder in (directory, directory / FOLDER) if directory.is_local else ():
        for name in left_by_the_dead(folder, names_in(folder)):
            (folder / name).delete_tree()
