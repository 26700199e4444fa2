"""Write the arrays of one store with zarr-python: each file encoded in memory, whole, and handed on once.

Files go through memory because what is stored must be counted, digested and made durable as the bytes that were
meant, whatever the storage: nothing is read back, and a bucket sees one upload a file and none of the requests with
which a store is otherwise asked what it holds.

Integers, booleans and text are compressed. Floats and packed values are not: zstd makes normal float16 values a twelfth
smaller, and costs more time than that is worth. Every chunk has its crc32c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from pea.cache.schema import gains_by_compression

Put = Callable[[str, memoryview], None]
"""Stores a file: its path inside the store, its bytes."""
_METADATA = "zarr.json"
_ZSTD_LEVEL = 1
_CONFIG: Any = {"write_empty_chunks": True}
"""Chunks of zeros are stored like any other: what is not there is an error to our reader."""


class StoreArrays:
    """The groups and arrays of one store, from the first row to the last."""

    def __init__(self, put: Put, attributes: Mapping[str, Any]) -> None:
        """``attributes``: of the root group."""
        self._put = put
        self._encoded: dict[str, Any] = {}
        self._memory = MemoryStore(self._encoded)
        self._arrays: list[ArrayWriter] = []
        zarr.create_group(self._memory, attributes=dict(attributes))

    def create_group(self, name: str, attributes: Mapping[str, Any]) -> None:
        """A group below the root."""
        zarr.create_group(self._memory, path=name, attributes=dict(attributes))

    def create_array(
        self,
        name: str,
        dtype: np.dtype[Any],
        row_shape: Sequence[int],
        dimension_names: Sequence[str],
        attributes: Mapping[str, Any],
        *,
        chunk_rows: int,
        file_rows: int,
    ) -> ArrayWriter:
        """An array without rows. ``name`` may have slashes: zarr makes the groups between.

        ``chunk_rows``: rows that are checksummed and read together; it divides ``file_rows``.
        """
        assert file_rows % chunk_rows == 0, (file_rows, chunk_rows)
        compressed = gains_by_compression(dtype, row_shape)
        layout = {
            "name": name,
            "chunks": (chunk_rows, *row_shape),
            "shards": (file_rows, *row_shape),
            "filters": None,
            "serializer": BytesCodec(endian="little" if dtype.itemsize > 1 else None),
            "compressors": [*([ZstdCodec(level=_ZSTD_LEVEL)] if compressed else ()), Crc32cCodec()],
            "fill_value": 0,
            "dimension_names": list(dimension_names),
            "attributes": dict(attributes),
            "config": _CONFIG,
        }
        empty = np.empty((0, *row_shape), dtype=dtype.newbyteorder("<"))
        self._arrays.append(ArrayWriter(self._memory, layout, empty, self._hand_on))
        return self._arrays[-1]

    def finish(self) -> None:
        """Hand on the metadata of all arrays and groups, those without a row as well."""
        for array in self._arrays:
            array.finish()
        for name in sorted(self._encoded):
            self._put(name, self._take(name))

    def _hand_on(self) -> None:
        for name in [name for name in self._encoded if name.rpartition("/")[2] != _METADATA]:
            self._put(name, self._take(name))

    def _take(self, name: str) -> memoryview:
        return memoryview(self._encoded.pop(name).as_numpy_array()).cast("B")


class ArrayWriter:
    """One array, written file by file."""

    def __init__(
        self, store: MemoryStore, layout: Mapping[str, Any], empty: npt.NDArray[Any], hand_on: Callable[[], None]
    ) -> None:
        """``layout``: of ``zarr.create_array``; ``empty``: no rows, of the array's shape and type."""
        self.name = str(layout["name"])
        self._store, self._layout, self._empty, self._hand_on = store, layout, empty, hand_on
        self._array: zarr.Array[Any] | None = None

    def write(self, rows: npt.NDArray[Any]) -> None:
        """Add the next file: as many rows as a file has, or fewer in the last one."""
        rows = np.ascontiguousarray(rows, dtype=self._empty.dtype)
        if self._array is None:
            self._array = self._create(rows)
        else:
            start = self._array.shape[0]
            assert start % self._layout["shards"][0] == 0, "only the last file may have fewer rows"
            self._array.resize((start + len(rows), *rows.shape[1:]))
            self._array[start:] = rows
        self._hand_on()

    def finish(self) -> None:
        """Make sure that the array is there, if without a row."""
        if self._array is None:
            self._array = self._create(self._empty)

    def _create(self, rows: npt.NDArray[Any]) -> zarr.Array[Any]:
        """The array with its first file, in one step: each that zarr takes waits for its event loop."""
        assert len(rows) <= self._layout["shards"][0], len(rows)
        return zarr.create_array(self._store, data=rows, **self._layout)
