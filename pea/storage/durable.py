"""Files and folders that are published whole or not at all, also across a power cut."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from pea.errors import DiskFullError, StorageError, is_disk_full

_FSYNC_THREADS = 16
TEMPORARY = ".tmp-"
"""Part of the name of everything that is not published yet."""


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


def is_temporary(name: str) -> bool:
    """Whether a file name says that it is not published yet."""
    return name.startswith(".") and TEMPORARY in name


def make_folder(path: Path) -> None:
    """Create a folder with its parents, each made durable in the one above it.

    Raises:
        StorageError: a file has the name of one of them.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:
        raise StorageError(
            "a file lies where a folder is needed", where=path, remedy="Name another place, or move the file away."
        ) from None
    fsync_path(path.parent)


@contextmanager
def named(path: Path, temporary: Path) -> Iterator[None]:
    """What the system refuses `temporary` is said of `path`, which it stands for until it is published."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | os.PathLike) and Path(error.filename).is_relative_to(temporary):
            error.filename = str(path / Path(error.filename).relative_to(temporary))
            error.filename2 = None
        raise


def atomic_write(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new one and nothing between.

    Raises:
        FileExistsError: ``replace`` is false and the file exists.
        DiskFullError: no room; ``path`` is untouched.
    """
    temporary = temporary_sibling(path)
    with disk_full_as_error(path), named(path, temporary):
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


def remove_tree(path: Path, *, must: bool = False) -> None:
    """Delete a directory under a hidden name, so that a crash leaves no half-deleted one that looks whole.

    ``must``: it is an error if something of it stays, and when this returns, a power cut does not bring it back.

    Raises:
        OSError: something cannot be deleted (with ``must``); the hidden rest stays.
    """
    hidden = temporary_sibling(path)
    try:
        os.rename(path, hidden)
    except FileNotFoundError:
        return
    if not must:
        shutil.rmtree(hidden, ignore_errors=True)
        return
    while hidden.exists():
        with suppress(FileNotFoundError):  # somebody else clears what is hidden
            shutil.rmtree(hidden)
    with suppress(FileNotFoundError):
        fsync_path(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Delete the files that dead writers left, at any depth; for whoever owns the folder."""
    for path in folder.rglob(f".*{TEMPORARY}*"):
        path.unlink(missing_ok=True)


def share_files(folder: Path) -> None:
    """Give every file below `folder` the mode of a newly made one.

    Libraries that write through private temporary files leave theirs unreadable to anybody else.
    """
    probe = temporary_sibling(folder / "mode")
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step."""
    make_folder(path.parent)
    temporary = temporary_sibling(path)
    with named(path, temporary):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


@contextmanager
def new_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` when the block ends well.

    A `path` that somebody else made first is replaced, or, where `replace` is false, kept: then what was filled goes.
    """
    make_folder(path.parent)
    temporary = temporary_sibling(path)
    with named(path, temporary):
        temporary.mkdir()
        try:
            yield temporary
            share_files(temporary)
            fsync_tree(temporary)
            _publish(temporary, path, replace=replace)
            fsync_path(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _publish(folder: Path, path: Path, *, replace: bool) -> None:
    """Give a folder its name, whoever else does the same at the same time."""
    while True:
        try:
            folder.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if not replace:
            return
        remove_tree(path)
