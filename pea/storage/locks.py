"""Locks that die with their process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pea.errors import CacheError, ShardLockedError


class FileLock:
    """An exclusive lock that the system releases when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            ShardLockedError: somebody else holds it.
            CacheError: the file system has no locks.
        """
        self._path = path
        while True:
            self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._descriptor)
                raise self._refused(error) from error
            if self._is_current():
                return
            os.close(self._descriptor)  # the holder before deleted the file between our open and our lock

    def _refused(self, error: OSError) -> CacheError:
        if isinstance(error, BlockingIOError):
            what, remedy = "another writer is busy with it", "Wait for it, or end it."
            return ShardLockedError(what, where=self._path.with_suffix(""), remedy=remedy)
        remedy = "Mount the file system with locks (flock), or choose another folder."
        return CacheError("cannot lock the file", where=self._path, got=error, remedy=remedy)

    @property
    def held(self) -> bool:
        """Whether the lock is still ours."""
        return self._descriptor >= 0

    def _is_current(self) -> bool:
        try:
            return os.fstat(self._descriptor).st_ino == os.stat(self._path).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back and delete its file; harmless when repeated."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1
