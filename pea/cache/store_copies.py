"""The files of one store of a bucket as copies on this machine's disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

from pea.cache.completion import FileEntry
from pea.errors import LocationMissingError
from pea.storage.digests import RunningDigest
from pea.storage.local_copies import DEFAULT_BYTES, LocalCopies
from pea.storage.location import Location
from pea.storage.work import work_folder

_AT_ONCE = 8


class StoreCopies:
    """Brings the files that are asked for to the disk, as the completion record describes them."""

    def __init__(self, copies: LocalCopies, store: Location, files: Mapping[str, FileEntry]) -> None:
        self._copies, self._store, self._files = copies, store, files
        self.must = not store.is_read_by_tensorstore
        """Whether there is no other way to read the store."""
        self.folder = Location.parse(copies.folder(store))
        """Where the copies are."""

    def are_here(self, names: Sequence[str]) -> bool:
        """Whether there are copies of all these files."""
        return all(self._copies.has(self._store, name, self._files[name].size_bytes) for name in names)

    def bring(self, names: Sequence[str]) -> bool:
        """Make sure that there are copies of all these files; false: they are to be read from the store.

        Raises:
            ValueError: the store holds other bytes than were written (where ``must``).
            StorageError: the store cannot be read, or the disk not be written (where ``must``).
        """
        entries = ((name, self._files[name]) for name in names)
        return all(
            self._copies.bring(self._store, name, entry.size_bytes, entry.digest, must=self.must)
            for name, entry in entries
        )

    def begin(self, names: Sequence[str]) -> Future[bool]:
        """``bring`` in the background."""
        return _threads().submit(self.bring, names)

    def bring_again(self, names: Sequence[str]) -> bool:
        """``bring`` after a copy could not be read: it was deleted meanwhile, or the disk has altered it."""
        for name in names:
            self._copies.drop(self._store, name)
        return self.bring(names)

    def read(self, name: str) -> bytes | None:
        """The content of a small file, checked; None: it is to be read from the store.

        Raises:
            ValueError, StorageError: as ``bring``.
        """
        brought, digest = self.bring([name]), self._files[name].digest
        for _ in range(2):
            if not brought:
                break
            try:
                data = (self.folder / name).read_bytes()
            except LocationMissingError:
                data = b""
            found = RunningDigest(digest)
            found.add(data)
            if found.hex() == digest:
                return data
            brought = self.bring_again([name])
        return None

    def drop_replaced(self, part: str) -> None:
        """Delete the copies of what this store has taken the place of: they may hold what was taken down since."""
        self._copies.drop_others(self._store, (f"{part}-", f"{part}."))


def default_copies() -> LocalCopies:
    """For a store that can be read in no other way, where the reader has said nothing about copies."""
    return copies_of_process(DEFAULT_BYTES, work_folder())


@cache
def copies_of_process(most_bytes: int, work: Path) -> LocalCopies:
    """One for all readers of a process: what one of them uses is in use by the others."""
    return LocalCopies(most_bytes, work)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pea-fetch")
