"""Read rows of a zarr v3 array with sharding, verified: never a fill value in place of what is missing.

A general zarr reader takes a missing or empty chunk for the fill value, without an error. This one knows
from the completion record which files must be there and how long they are, and checks the crc32c of every
chunk it uses. It starts no thread and no event loop, so it works in forked workers.

Source: zarr v3 specification, sharding codec 1.0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import google_crc32c
import numpy as np
import numpy.typing as npt

from pea.cache.completion import FileEntry
from pea.errors import CacheError, ShardDamagedError
from pea.storage.digests import sha256_text

_MISSING = (1 << 64) - 1
_CRC_BYTES = 4
_REMEDY = "Run `pea inspect check --repair`, then `pea cache` again."
_INNER_CODECS = (["bytes", "crc32c"], ["bytes", "zstd", "crc32c"])
_RESIDUE = 0x48674BC7
"""The crc32c of any bytes that are followed by their own crc32c."""


class StoredArray:
    """One array of a finished store."""

    def __init__(self, store: Path, name: str, files: Mapping[str, FileEntry]) -> None:
        """Check the array's metadata and that its files are there.

        Raises:
            ShardDamagedError: a file is missing, of another size, or the metadata was changed.
            CacheError: the array is not laid out as this format version says.
        """
        self._store, self._name, self._files = store, name, files
        metadata = self._read_metadata()
        try:
            self.shape: tuple[int, ...] = tuple(metadata["shape"])
            self.attributes: dict[str, Any] = metadata["attributes"]
            self.dimension_names: tuple[str, ...] = tuple(metadata["dimension_names"])
            self.dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
            self._file_rows: int = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
            (sharding,) = metadata["codecs"]
            inner = sharding["configuration"]
            self._chunk_rows: int = inner["chunk_shape"][0]
            codecs = [codec["name"] for codec in inner["codecs"]]
            layout = (sharding["name"], inner["index_location"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CacheError("not an array of this format", where=store / name, got=error) from None
        if layout != ("sharding_indexed", "end") or codecs not in _INNER_CODECS:
            raise CacheError("not an array of this format", where=store / name, got=[*layout, codecs])
        self._compressed = "zstd" in codecs
        self._chunks_per_file = self._file_rows // self._chunk_rows
        self._indices: dict[int, list[list[int]]] = {}
        self._places = [self._place(number) for number in range(-(-self.shape[0] // self._file_rows))]
        """(path, size in bytes) of each file."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def rows_apart(self) -> bool:
        """Whether every row is a chunk of its own, uncompressed: one can be read as quickly alone as with others."""
        return self._chunk_rows == 1 and not self._compressed

    def read(self, start: int, stop: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Rows ``start <= row < stop``; into ``out`` where it is given, contiguous and of their shape and type.

        Raises:
            ShardDamagedError: a file is missing, was cut or changed.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}..{stop} of {len(self)} in {self._name}")
        rows = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype) if out is None else out
        assert rows.flags.c_contiguous, "chunks are read straight to their place"
        for number in range(start // self._file_rows, -(-stop // self._file_rows)) if stop > start else ():
            first = number * self._file_rows
            self._read_file(number, max(start - first, 0), min(stop - first, self._file_rows), rows, first - start)
        return rows

    def _read_file(self, number: int, start: int, stop: int, rows: npt.NDArray[Any], shift: int) -> None:
        """Put rows start..stop of one file into ``rows``, whose row 0 is the file's row ``-shift``."""
        path, expected = self._places[number]
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            self._damaged(path, error.strerror)
        try:
            size = os.fstat(descriptor).st_size
            if size != expected:
                self._damaged(path, f"{size} bytes instead of {expected}")
            index = self._index(number, descriptor, size)
            for chunk in range(start // self._chunk_rows, -(-stop // self._chunk_rows)):
                first = chunk * self._chunk_rows
                begin, end = max(start, first), min(stop, first + self._chunk_rows)
                wanted, (offset, length) = rows[begin + shift : end + shift], index[chunk]
                if end - begin == self._chunk_rows and not self._compressed:
                    self._read_raw_chunk(descriptor, path, offset, length, wanted)
                else:
                    wanted[:] = self._read_chunk(descriptor, path, offset, length)[begin - first : end - first]
        finally:
            os.close(descriptor)

    def _read_raw_chunk(self, descriptor: int, path: Path, offset: int, length: int, wanted: npt.NDArray[Any]) -> None:
        """An uncompressed chunk, read to where it is wanted: no copy."""
        if offset == _MISSING or length != wanted.nbytes + _CRC_BYTES:
            self._damaged(path, "a chunk that was never written")
        stored, values = np.empty(1, dtype="<u4"), wanted.reshape(-1)
        if os.preadv(descriptor, [values.view(np.uint8).data, stored.view(np.uint8).data], offset) != length:
            self._damaged(path, "fewer bytes than were written")
        if google_crc32c.value(values.view(np.uint8)) != stored[0]:
            self._damaged(path, "other bytes than were written (crc32c)")

    def _index(self, number: int, descriptor: int, size: int) -> list[list[int]]:
        """(offset, length) of each chunk of a file; kept."""
        if number not in self._indices:
            length = 16 * self._chunks_per_file + _CRC_BYTES
            data = os.pread(descriptor, length, max(0, size - length))
            self._check_crc(data, length, self._places[number][0])
            self._indices[number] = np.frombuffer(data[:-_CRC_BYTES], dtype="<u8").reshape(-1, 2).tolist()
        return self._indices[number]

    def _read_chunk(self, descriptor: int, path: Path, offset: int, length: int) -> npt.NDArray[Any]:
        if offset == _MISSING:
            self._damaged(path, "a chunk that was never written")
        data = os.pread(descriptor, length, offset)
        self._check_crc(data, length, path)
        body = memoryview(data)[:-_CRC_BYTES]
        try:
            values = np.frombuffer(_decompress(body) if self._compressed else body, dtype=self.dtype)
            return values.reshape(self._chunk_rows, *self.shape[1:])
        except (RuntimeError, ValueError) as error:
            self._damaged(path, error)

    def _check_crc(self, data: bytes, length: int, path: Path) -> None:
        if len(data) != length or google_crc32c.value(data) != _RESIDUE:
            self._damaged(path, "other bytes than were written (crc32c)")

    def _read_metadata(self) -> dict[str, Any]:
        path = self._store / self._name / "zarr.json"
        entry = self._files.get(f"{self._name}/zarr.json")
        if entry is None:
            raise CacheError("no such array", where=self._store / self._name)
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._damaged(path, error)
        if sha256_text(text) != entry.digest:
            self._damaged(path, "other metadata than were written (sha256)")
        metadata: dict[str, Any] = json.loads(text)
        return metadata

    def _place(self, number: int) -> tuple[Path, int]:
        """Path and size of one file, which must be there."""
        name = "/".join((self._name, "c", str(number), *["0"] * (len(self.shape) - 1)))
        path = self._store / name
        if name not in self._files:
            self._damaged(path, "a file that the completion record does not list")
        expected = self._files[name].size_bytes
        try:
            size = path.stat().st_size
        except OSError as error:
            self._damaged(path, error.strerror)
        if size != expected:
            self._damaged(path, f"{size} bytes instead of {expected}")
        return path, expected

    def _damaged(self, path: Path, got: object) -> NoReturn:
        raise ShardDamagedError("the shard is damaged", where=path, got=got, remedy=_REMEDY) from None


def _decompress(data: memoryview) -> bytes:
    from numcodecs.zstd import decompress

    values: bytes = decompress(data)
    return values
