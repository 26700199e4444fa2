"""Durable files: atomic publishing with fsync, digests, and locks that die with their process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pea.errors import CacheError, DiskFullError, ShardLockedError, is_disk_full

_BLOCK_BYTES = 1 << 22
_FSYNC_THREADS = 16
TEMPORARY = ".tmp-"
"""Part of the name of everything that is not published yet."""


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_text(text: str) -> str:
    """Hex digest of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def crc32_file(path: str | Path) -> str:
    """The CRC-32 of a file's bytes, 8 hex digits: as good against accidents as sha256, and ten times quicker.

    Not crc32c: chunks are followed by theirs, and the crc32c of such a file is the same whatever the chunks hold.
    """
    crc = 0
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


@contextmanager
def disk_full_as_error(where: object) -> Iterator[None]:
    """Turn the system's "no space left" into a ``DiskFullError``; let every other error pass.

    Raises:
        DiskFullError: the disk, the quota or the file size limit is full.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(
                "the disk is full", where=where, remedy="Make room and run the same command again."
            ) from error
        raise


def fsync_path(path: Path) -> None:
    """Make a file's or directory's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Make every file and directory below (and including) ``root`` durable, many at a time: disks wait for them."""
    paths = [Path(folder, name) for folder, _, names in os.walk(root) for name in (*names, "")]
    with ThreadPoolExecutor(_FSYNC_THREADS, thread_name_prefix="pea-fsync") as pool:
        for _ in pool.map(fsync_path, paths):
            pass


def temporary_sibling(path: Path) -> Path:
    """A fresh hidden name beside ``path``, for what will be renamed to it."""
    return path.with_name(f".{path.name}{TEMPORARY}{uuid.uuid4().hex[:12]}")


def atomic_write(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new one and nothing between.

    Raises:
        FileExistsError: ``replace`` is false and the file exists.
        DiskFullError: no room; ``path`` is untouched.
    """
    temporary = temporary_sibling(path)
    with disk_full_as_error(path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
            fsync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Delete a directory under a hidden name, so that a crash leaves no half-deleted one that looks whole."""
    hidden = temporary_sibling(path)
    try:
        os.rename(path, hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)


def remove_temporaries(directory: Path, prefix: str) -> None:
    """Delete what dead writers left: hidden siblings of ``prefix...``."""
    for path in directory.glob(f".{prefix}*{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
