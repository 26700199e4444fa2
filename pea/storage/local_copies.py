"""Files of a store that never change, kept on this machine's disk up to a bound, for all processes that read them.

A copy has its name only when its length and digest are those that are expected. Nothing is locked: of several
processes that fetch the same file, each puts the same content in its place. What is there is looked at by listing it,
so that there is no index that could be wrong; each process looks again when it has added a fiftieth of the bound.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pea.errors import DiskFullError, StorageError
from pea.storage.digests import RunningDigest
from pea.storage.durable import is_temporary, remove_tree, temporary_sibling
from pea.storage.failures import translated
from pea.storage.location import Location
from pea.storage.work import folder_for, work_folder

DEFAULT_BYTES = 50_000_000_000
"""Most bytes that are kept where nothing else is said."""
_KIND = "copies"
_BLOCK_BYTES = 4 << 20
_SHARE_AT_ONCE = 50
_TOUCH_AGAIN_S = 60.0
_LOOK_AGAIN_S = 60.0
_DEAD_AFTER_S = 3600.0
"""A file that is being fetched and was not written to for so long has no writer."""
_NUM_LOCKS = 64


class _Kept(NamedTuple):
    """A file that is there."""

    used_s: float
    """When it was last read or written, since 1970, noted at most once a minute; endless while it is fetched."""
    size_bytes: int
    path: Path


class _CannotKeepError(Exception):
    """A copy finds no place on this machine's disk; the store is well."""

    def __init__(self, told: DiskFullError | StorageError) -> None:
        self.told = told


class LocalCopies:
    """Copies of stored files, below ``pea.storage.work.work_folder``. Used by any number of threads."""

    def __init__(self, most_bytes: int = DEFAULT_BYTES, work: Path | None = None) -> None:
        """``most_bytes``: what is kept of all stores together; where a file has no room, the least recently used go.

        What this object was asked for stays: who reads more than there is room for, again and again, would otherwise
        always find what it has just read, and never what comes next. ``work``: in place of ``work_folder``.
        """
        self._most_bytes, self._root = most_bytes, (work or work_folder()) / _KIND
        self._begun_s = time.time()
        self._used: dict[Path, float] = {}
        self._room_lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_NUM_LOCKS)]
        self._room_bytes, self._under_way_bytes, self._look_at_s = 0, 0, 0.0

    def folder(self, store: Location) -> Path:
        """Where the copies of a folder's files are, under the same names."""
        return self._root / folder_for(_KIND, store.parent).name / store.name

    def has(self, store: Location, name: str, size_bytes: int) -> bool:
        """Whether there is a copy. It may go at any time: who cannot read it asks for it again (``bring``)."""
        return self._is_there(self.folder(store) / name, size_bytes)

    def bring(self, store: Location, name: str, size_bytes: int, digest: str, *, must: bool = False) -> bool:
        """Make sure that there is a copy of a file; false: there is no room for it, or it cannot be had.

        ``digest``: as ``RunningDigest`` takes it. ``must``: everything else goes if need be, and what is wrong is told.

        Raises:
            ValueError: the store holds something else (with ``must``).
            StorageError: the store cannot be read, or the disk not be written (with ``must``).
        """
        path = self.folder(store) / name
        with self._locks[hash(path) % _NUM_LOCKS]:
            if self._is_there(path, size_bytes):
                return True
            if not self._set_aside(size_bytes, must):
                return False
            try:
                self._fetch(store / name, path, size_bytes, digest)
            except _CannotKeepError as error:
                self._give_up_for_a_while()
                if must:
                    raise error.told from None
                return False
            except (StorageError, ValueError):
                if must:
                    raise
                return False
            finally:
                with self._room_lock:
                    self._under_way_bytes -= size_bytes
            self._used[path] = time.monotonic()
            return True

    def drop(self, store: Location, name: str) -> None:
        """Forget a copy, because it cannot be read."""
        path = self.folder(store) / name
        self._used.pop(path, None)
        with translated("cannot delete", path):
            path.unlink(missing_ok=True)

    def drop_others(self, store: Location, prefixes: tuple[str, ...]) -> None:
        """Forget the copies of folders beside ``store`` whose names begin so: they were replaced by it."""
        place = self.folder(store)
        with translated("cannot delete", place.parent):
            found = os.listdir(place.parent) if place.parent.is_dir() else []
            for name in found:
                if name.startswith(prefixes) and name != place.name:
                    remove_tree(place.parent / name)

    def _is_there(self, path: Path, size_bytes: int) -> bool:
        now = time.monotonic()
        if now - self._used.get(path, -_TOUCH_AGAIN_S) < _TOUCH_AGAIN_S:
            return True
        try:
            if os.stat(path).st_size != size_bytes:
                return False
            os.utime(path)
        except OSError:
            return False
        self._used[path] = now
        return True

    def _fetch(self, source: Location, path: Path, size_bytes: int, digest: str) -> None:
        temporary, found = temporary_sibling(path), RunningDigest(digest)
        try:
            with _keeping(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                file = temporary.open("xb")
            with file, source.open_stream() as stream:
                while block := stream.read(_BLOCK_BYTES):
                    found.add(block)
                    with _keeping(path):
                        file.write(block)
                with _keeping(path):
                    file.flush()
            if (found.num_bytes, found.hex()) != (size_bytes, digest):
                raise ValueError("other bytes than were written")
            with _keeping(path):
                temporary.replace(path)
        finally:
            _delete(temporary)

    def _set_aside(self, size_bytes: int, must: bool) -> bool:
        """Take room for a file; false: there is none, and what could go is in use."""
        with self._room_lock:
            if size_bytes > self._room_bytes and (must or time.monotonic() >= self._look_at_s):
                self._look(size_bytes, must)
            if size_bytes > self._room_bytes and not must:
                return False
            self._room_bytes = max(0, self._room_bytes - size_bytes)
            self._under_way_bytes += size_bytes
            return True

    def _look(self, wanted_bytes: int, must: bool) -> None:
        """Note how much room there is, and make some where it is little."""
        kept = sorted(_files(self._root))
        total = sum(each.size_bytes for each in kept) + self._under_way_bytes
        at_once = max(wanted_bytes, self._most_bytes // _SHARE_AT_ONCE)
        if total + wanted_bytes > self._most_bytes and (must or wanted_bytes <= self._most_bytes):
            for each in kept:
                in_use = each.used_s >= (math.inf if must else self._begun_s)
                if total + at_once <= self._most_bytes or in_use:
                    break
                _delete(each.path, self._root)
                self._used.pop(each.path, None)
                total -= each.size_bytes
        self._room_bytes = min(at_once, self._most_bytes - total)
        if self._room_bytes < wanted_bytes:
            self._look_at_s = time.monotonic() + _LOOK_AGAIN_S

    def _give_up_for_a_while(self) -> None:
        with self._room_lock:
            self._room_bytes, self._look_at_s = 0, time.monotonic() + _LOOK_AGAIN_S


@contextmanager
def _keeping(path: Path) -> Iterator[None]:
    """What the disk refuses is no fault of the store."""
    try:
        with translated("cannot write", path):
            yield
    except (DiskFullError, StorageError) as error:
        raise _CannotKeepError(error) from None


def _files(folder: Path) -> Iterator[_Kept]:
    """Every copy, and what is being fetched; what dead processes were fetching is deleted."""
    try:
        found = list(os.scandir(folder))
    except OSError:
        return
    for item in found:
        try:
            if item.is_dir(follow_symlinks=False):
                yield from _files(Path(item.path))
                continue
            status = item.stat(follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile
        if is_temporary(item.name) and time.time() - status.st_mtime > _DEAD_AFTER_S:
            _delete(Path(item.path))
            continue
        used_s = math.inf if is_temporary(item.name) else status.st_mtime
        yield _Kept(used_s, status.st_size, Path(item.path))


def _delete(path: Path, root: Path | None = None) -> None:
    """Delete a file where that can be, with the folders up to ``root`` that it leaves empty."""
    try:
        path.unlink(missing_ok=True)
        while root is not None and (path := path.parent) != root:
            path.rmdir()
    except OSError:
        return
