"""One tar: there whole or not at all, the same bytes for the same samples, and its count and digest beside it."""

from __future__ import annotations

import glob
import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pea.corpus.archive import BLOCK_BYTES, RECORD_BYTES
from pea.corpus.sidecars import sidecar_text
from pea.storage.durable import (
    TEMPORARY,
    disk_full_as_error,
    fsync_path,
    make_folder,
    named,
    temporary_sibling,
    write_text,
)

_PLAIN_BYTES = 8 << 30
"""What the size field of an old header holds."""


class TarWriter:
    """Adds the files of samples; made by ``new_tar``. Writes the format's blocks itself, which saves half the time."""

    def __init__(self, file: _Hashed) -> None:
        self._file, self.num_samples = file, 0

    def add(self, key: str, files: Mapping[str, bytes]) -> None:
        """A sample: extension -> content."""
        for extension, data in files.items():
            header = tarfile.TarInfo(f"{key}.{extension}")
            header.size, header.mode = len(data), 0o644
            plain = header.name.isascii() and len(header.name) <= tarfile.LENGTH_NAME and len(data) < _PLAIN_BYTES
            kind = tarfile.USTAR_FORMAT if plain else tarfile.PAX_FORMAT
            self._file.write(header.tobuf(kind, "utf-8", "surrogateescape"))
            self._file.write(data)
            self._file.write(bytes(-len(data) % BLOCK_BYTES))
        self.num_samples += 1

    def finish(self) -> None:
        """The end mark, and zeros up to a whole record."""
        self._file.write(bytes(2 * BLOCK_BYTES))
        self._file.write(bytes(-self._file.size % RECORD_BYTES))


@contextmanager
def new_tar(path: Path) -> Iterator[TarWriter]:
    """A tar that appears under its name, with ``NAME.tar.json`` beside it, when the block ends well.

    One without samples does not appear.

    Raises:
        DiskFullError: there is no room.
    """
    make_folder(path.parent)
    for left in path.parent.glob(f".{glob.escape(path.name)}{TEMPORARY}*"):  # by a process that ended
        left.unlink(missing_ok=True)
    temporary = temporary_sibling(path)
    with disk_full_as_error(path), named(path, temporary):
        try:
            with temporary.open("xb") as file:
                hashed = _Hashed(file)
                writer = TarWriter(hashed)
                yield writer
                writer.finish()
                file.flush()
                os.fsync(file.fileno())
            if writer.num_samples:
                temporary.replace(path)
                write_text(sidecar_of(path), sidecar_text(writer.num_samples, hashed.size, hashed.sha256))
                fsync_path(path.parent)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def sidecar_of(path: Path) -> Path:
    """Where the count and the digest of a tar are."""
    return path.with_name(f"{path.name}.json")


class _Hashed:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._sha256.update(data)
        self.size += len(data)
        self._file.write(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()
