"""One tar: there whole or not at all, the same bytes for the same samples, and its count and digest beside it."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pea.corpus.sidecars import sidecar_text
from pea.storage.durable import (
    disk_full_as_error,
    fsync_path,
    remove_temporaries,
    temporary_sibling,
    write_text,
)


class TarWriter:
    """Adds the files of samples; made by ``new_tar``."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive, self.num_samples = archive, 0

    def add(self, key: str, files: Mapping[str, bytes]) -> None:
        """A sample: extension -> content."""
        for extension, data in files.items():
            header = tarfile.TarInfo(f"{key}.{extension}")
            header.size, header.mode = len(data), 0o644
            self._archive.addfile(header, io.BytesIO(data))
        self.num_samples += 1


@contextmanager
def new_tar(path: Path) -> Iterator[TarWriter]:
    """A tar that appears under its name, with ``NAME.tar.json`` beside it, when the block ends well.

    One without samples does not appear.

    Raises:
        DiskFullError: there is no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_temporaries(path.parent, path.name)
    temporary = temporary_sibling(path)
    with disk_full_as_error(path):
        try:
            with temporary.open("xb") as file:
                hashed = _Hashed(file)
                with tarfile.open(fileobj=hashed, mode="w", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
                    writer = TarWriter(archive)
                    yield writer
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

    def write(self, data: Any) -> int:
        self._sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.size

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()
