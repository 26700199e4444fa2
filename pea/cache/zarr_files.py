"""Write zarr v3 groups and arrays directly: one file of an array at a time, each byte once.

What is written is plain zarr (v3, sharding codec), which zarr, tensorstore and xarray open. zarr-python's own writer
takes 10 ms an array for its event loop and rewrites metadata; here a file is one encoding and one write.

Integers, booleans and text are compressed. Floats and packed values are not: zstd makes normal float16 values a twelfth
smaller, and decompresses 0.6 GB/s of them where the rest of reading does more than one. Every chunk has its crc32c.

Source: zarr v3 specification, sharding codec 1.0.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

MISSING = (1 << 64) - 1
"""Offset and length of a chunk that was never written."""
_ZSTD_LEVEL = 1
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
_ZSTD = {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make a group; its folder may exist, its metadata may not."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_metadata(folder, {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"})


def gains_by_compression(dtype: np.dtype[Any], row_shape: Sequence[int]) -> bool:
    """Whether an array is compressed: numbers of 8 bytes, truth values, and rows of a single value."""
    return dtype.kind == "b" or dtype.itemsize == 8 or not row_shape


class ArrayFiles:
    """One array of a store, written file by file; nobody can read it before ``finish``."""

    def __init__(
        self,
        store: Path,
        name: str,
        dtype: np.dtype[Any],
        row_shape: Sequence[int],
        dimension_names: Sequence[str],
        attributes: Mapping[str, Any],
        *,
        chunk_rows: int,
        file_rows: int,
    ) -> None:
        """``name`` may have slashes: the groups between are made. ``chunk_rows`` divides ``file_rows``."""
        assert file_rows % chunk_rows == 0, (file_rows, chunk_rows)
        self.name = name
        self._dtype, self._row_shape = dtype.newbyteorder("<"), tuple(row_shape)
        self._dimension_names, self._attributes = list(dimension_names), dict(attributes)
        self._chunk_rows, self._file_rows = chunk_rows, file_rows
        self._compressed = gains_by_compression(dtype, self._row_shape)
        self._num_rows = 0
        self._folder = store
        for part in name.split("/")[:-1]:
            self._folder = self._folder / part
            if not (self._folder / "zarr.json").exists():
                write_group(self._folder, {})
        self._folder = store / name
        self._folder.mkdir()

    def write(self, rows: npt.NDArray[Any]) -> None:
        """Add the next file: ``file_rows`` rows, or fewer in the last one."""
        assert self._num_rows % self._file_rows == 0, "only the last file may have fewer rows"
        assert 0 < len(rows) <= self._file_rows, len(rows)
        number = self._num_rows // self._file_rows
        path = self._folder.joinpath("c", str(number), *["0"] * len(self._row_shape))
        path.parent.mkdir(parents=True, exist_ok=True)
        index = np.full((self._file_rows // self._chunk_rows, 2), MISSING, dtype="<u8")
        with path.open("wb", buffering=0) as file:
            position = 0
            for chunk, start in enumerate(range(0, len(rows), self._chunk_rows)):
                data = self._encode(rows[start : start + self._chunk_rows])
                index[chunk] = position, len(data)
                position += _write_all(file, data)
            _write_all(file, _with_crc(index.tobytes()))
        self._num_rows += len(rows)

    def finish(self) -> None:
        """Write the metadata."""
        codecs = [_BYTES, *([_ZSTD] if self._compressed else []), _CRC]
        sharding = {
            "chunk_shape": [self._chunk_rows, *self._row_shape],
            "codecs": codecs,
            "index_codecs": [_BYTES, _CRC],
            "index_location": "end",
        }
        grid = {"chunk_shape": [self._file_rows, *self._row_shape]}
        metadata = {
            "shape": [self._num_rows, *self._row_shape],
            "data_type": self._dtype.name,
            "chunk_grid": {"name": "regular", "configuration": grid},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self._dtype.type(0).item(),
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": self._attributes,
            "dimension_names": self._dimension_names,
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }
        _write_metadata(self._folder, metadata)

    def _encode(self, rows: npt.NDArray[Any]) -> bytes:
        """One chunk; the last of an array is filled up with zeros."""
        if len(rows) < self._chunk_rows:
            whole = np.zeros((self._chunk_rows, *self._row_shape), dtype=self._dtype)
            whole[: len(rows)] = rows
            rows = whole
        data = np.ascontiguousarray(rows, dtype=self._dtype).tobytes()
        if self._compressed:
            from numcodecs.zstd import compress

            data = compress(data, _ZSTD_LEVEL)
        return _with_crc(data)


def _with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def _write_all(file: Any, data: bytes) -> int:
    """Write every byte (a raw file may take only some at a time); returns how many."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    return len(data)


def _write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    (folder / "zarr.json").write_text(json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False), "utf-8")
