"""Files on a disk: read with the change of a file noticed, written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pea.errors import ContentChangedError, LocationError, StorageError
from pea.storage.durable import (
    atomic_write,
    disk_full_as_error,
    fsync_path,
    is_temporary,
    make_folder,
    remove_tree,
    temporary_sibling,
)
from pea.storage.failures import translated
from pea.storage.status import Entry, Status

_BUFFER_BYTES = 1 << 20


class DiskFile:
    """One path on a disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        with translated("cannot read", self.path):
            try:
                os.stat(self.path)
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def is_folder(self) -> bool:
        """Whether there is a folder."""
        return self.path.is_dir()

    def status(self) -> Status:
        """Size, version and time."""
        with translated("cannot read", self.path):
            return _status(_no_pipe(self.path))

    def read(self, start: int, stop: int | None) -> bytes:
        """The bytes from ``start`` to before ``stop``."""
        with translated("cannot read", self.path), self.path.open("rb") as file:
            file.seek(start)
            return file.read(-1 if stop is None else max(0, stop - start))

    def open_stream(self) -> BinaryIO:
        """A seekable stream that notices a change of the content."""
        with translated("cannot read", self.path):
            _no_pipe(self.path)
            return io.BufferedReader(_UnchangedFile(self.path), _BUFFER_BYTES)

    def entries(self, recursive: bool) -> Iterator[Entry]:
        """What is in the folder, by name."""
        with translated("cannot list", self.path):
            yield from sorted(_walk(self.path, "", recursive), key=lambda entry: entry.name)

    def write(self, data: bytes) -> None:
        """Replace the content as a whole."""
        self._place(data, replace=True)

    def create(self, data: bytes) -> None:
        """Write what is not there yet."""
        self._place(data, replace=False)

    def _place(self, data: bytes, *, replace: bool) -> None:
        with translated("cannot write", self.path):
            make_folder(self.path.parent)
            atomic_write(self.path, data, replace=replace)

    def write_pieces(self, pieces: Iterable[bytes]) -> None:
        """Replace the content as a whole by one that comes in pieces."""
        temporary = temporary_sibling(self.path)
        with translated("cannot write", self.path), disk_full_as_error(self.path):
            make_folder(self.path.parent)
            try:
                with temporary.open("xb") as file:
                    for piece in pieces:
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.path)
                fsync_path(self.path.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete the file; harmless where none is."""
        with translated("cannot delete", self.path):
            try:
                self.path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            fsync_path(self.path.parent)

    def delete_tree(self) -> None:
        """Delete everything at and below."""
        if len(self.path.resolve().parts) < 3:
            raise LocationError("refuses to delete a folder so near the root", where=self.path)
        with translated("cannot delete", self.path):
            if self.path.is_symlink() or self.path.is_file():
                self.delete()
            else:
                remove_tree(self.path, must=True)


class _UnchangedFile(io.RawIOBase):
    """A file opened for reading that notices when it is altered or replaced before its end was reached."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._file = path, path.open("rb", buffering=0)
        self._expected = _status(os.fstat(self._file.fileno()))

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """Of the file."""
        return self._file.fileno()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        with translated("cannot read", self._path):
            num_bytes = self._file.readinto(buffer) or 0
        if _status(os.fstat(self._file.fileno())) != self._expected or (num_bytes == 0 and not self._is_in_place()):
            raise ContentChangedError("it changed while it was read", where=self._path, remedy="Run again.")
        return num_bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _is_in_place(self) -> bool:
        try:
            return _status(os.stat(self._path)) == self._expected
        except OSError:
            return False


def _no_pipe(path: Path) -> os.stat_result:
    """What the system knows of a file or folder. Opening a pipe would wait for a writer, and a device has no end."""
    found = os.stat(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise StorageError("not a file", where=path, got="a pipe, a socket or a device")
    return found


def _status(found: os.stat_result) -> Status:
    version = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
    return Status(found.st_size, version, found.st_mtime_ns / 1e9)


def _walk(folder: Path, prefix: str, recursive: bool) -> Iterator[Entry]:
    try:
        found = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for item in found:
        if is_temporary(item.name):
            continue  # not published yet
        try:
            if not item.is_dir():
                yield Entry(prefix + item.name, _status(item.stat()))
            elif not recursive:
                yield Entry(prefix + item.name, None)
            elif not item.is_symlink():
                yield from _walk(Path(item.path), f"{prefix}{item.name}/", recursive)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            continue  # deleted meanwhile, or a link to nothing or to itself
