"""One part of a cache copied file by file, each compared with its digest while it passes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pea.cache.completion import CompletionRecord, FileEntry, has_digest, read_record, record_to_bytes
from pea.cache.garbage import clear_garbage
from pea.cache.part import store_location
from pea.cache.part_plan import PartPlan
from pea.cache.publication import newest, publish
from pea.cache.reader import Cache
from pea.cache.removals import removed_in
from pea.errors import CacheError, LocationMissingError, ShardDamagedError, ShardUnfinishedError, StorageError
from pea.plurals import count_of
from pea.storage.digests import RunningDigest
from pea.storage.durable import remove_temporaries
from pea.storage.failures import translated
from pea.storage.leases import take
from pea.storage.location import Location

_AT_ONCE = 8
_BLOCK_BYTES = 4 << 20
Outcome = Literal["copied", "kept", "unfinished"]


def copy_part(cache: Cache, copy: Cache, plan: PartPlan) -> tuple[Outcome, int]:
    """Copy one part unless it is there; returns what was done, and the bytes that were copied.

    Raises:
        CacheError: it holds samples that were taken down.
        ShardDamagedError: a file is missing, or not what the record says; the copy does not look finished.
        LeaseHeldError: somebody else copies it to the same place.
        StorageError: a store cannot be read or written.
    """
    while True:
        place = cache.record_path(plan)
        try:
            record = read_record(place)
        except ShardUnfinishedError:
            if cache.record_path(plan) == place:
                return "unfinished", 0
            continue
        _refuse_removed(copy, record, place)
        if _is_there(copy, plan, record):
            clear_garbage(copy.shard_dir(plan.tar), plan.part)  # who copied it may have been stopped before
            return "kept", 0
        try:
            return "copied", _copy_files(place, record, copy, plan)
        except LocationMissingError as error:
            if cache.record_path(plan) != place:
                continue  # the part was written anew meanwhile
            raise ShardDamagedError(
                "a file of the shard is missing",
                where=place,
                got=error,
                remedy="Run `pea inspect check --repair` on the source, then `pea cache` again.",
            ) from None


def _is_there(copy: Cache, plan: PartPlan, record: CompletionRecord) -> bool:
    try:
        return read_record(copy.record_path(plan)) == record
    except (ShardUnfinishedError, ShardDamagedError):
        return False


def _copy_files(place: Location, record: CompletionRecord, copy: Cache, plan: PartPlan) -> int:
    folder = copy.shard_dir(plan.tar)
    origin, store = store_location(place, record.store), folder / record.store
    with take(store, f"copying {plan.tar}/{plan.part}") as lease:
        there = {entry.name: entry.status.size_bytes for entry in store.entries(recursive=True) if entry.status}

        def copy_one(name: str) -> None:
            entry = record.files[name]
            if there.get(name) != entry.size_bytes or not has_digest(store.below(name), entry.digest):
                _copy_file(origin.below(name), store.below(name), entry)

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pea-copy") as pool:
            for _ in pool.map(copy_one, record.files):
                pass
        if store.is_local:
            with translated("cannot delete", store):
                remove_temporaries(store.local_path)
        store.make_durable()
        while True:
            before = newest(folder, plan.part)
            _refuse_removed(copy, record, place)
            lease.confirm()
            if publish(folder, plan.part, 0 if before is None else before + 1, record_to_bytes(record)):
                break
            if _is_there(copy, plan, record):
                break
    clear_garbage(folder, plan.part)
    return record.num_bytes


def _copy_file(source: Location, destination: Location, entry: FileEntry) -> None:
    """One file as a whole; it appears only if it is what the record says.

    Raises:
        ShardDamagedError: it is not.
    """
    with source.open_stream() as stream:
        destination.write_pieces(_verified(iter(lambda: stream.read(_BLOCK_BYTES), b""), entry, source))
    stored = destination.status().size_bytes
    if stored != entry.size_bytes:
        raise StorageError("the copy is not what was sent", where=destination, expected=entry.size_bytes, got=stored)


def _verified(pieces: Iterator[bytes], entry: FileEntry, source: Location) -> Iterator[bytes]:
    found, held = RunningDigest(entry.digest), b""
    for piece in pieces:
        found.add(piece)
        if held:
            yield held
        held = piece
    if (found.num_bytes, found.hex()) != (entry.size_bytes, entry.digest):
        raise ShardDamagedError(
            "a file of the shard is not what was written",
            where=source,
            expected=f"{entry.size_bytes} bytes, {entry.digest}",
            got=f"{found.num_bytes} bytes, {found.hex()}",
            remedy="Run `pea inspect check --repair` on the source, then `pea cache` again.",
        )
    if held:  # held back until the whole is known to be right
        yield held


def _refuse_removed(copy: Cache, record: CompletionRecord, place: Location) -> None:
    gone = removed_in(record, copy.removed())
    if gone:
        raise CacheError(
            f"{count_of(len(gone), 'sample')} of the shard taken down, here or at the destination",
            where=place,
            remedy="Take them down in the source with `pea inspect remove`, and copy again.",
        )
