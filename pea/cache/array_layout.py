"""What the ``zarr.json`` of an array says, accepted only as far as the stored files can hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pea.cache import strict_json as must
from pea.cache.completion import FileEntry
from pea.plurals import count_of

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)
_INNER_CODECS = (["bytes", "crc32c"], ["bytes", "zstd", "crc32c"])
_MOST_DIMENSIONS = 8
_CRC_BYTES = 4
_PLACE_BYTES = 16
_MOST_CHUNK_BYTES = 64 << 20
_MOST_ROW_BYTES = 4 << 20
"""Of compressed chunks and rows, whose file does not tell how large they become."""
_sizes = must.list_of(must.count(1 << 40), _MOST_DIMENSIONS)
_codec = must.fields({"name": must.text(64)}, {"configuration": must.anything}, others=True)
_sharding = must.fields(
    {
        "chunk_shape": _sizes,
        "codecs": must.list_of(_codec, 4),
        "index_codecs": must.list_of(_codec, 4),
        "index_location": must.one_of("end"),
    },
    others=True,
)
_array = must.fields(
    {
        "zarr_format": must.one_of(3),
        "node_type": must.one_of("array"),
        "shape": _sizes,
        "data_type": must.one_of(*DTYPES),
        "chunk_grid": must.fields(
            {"name": must.one_of("regular"), "configuration": must.fields({"chunk_shape": _sizes}, others=True)},
            others=True,
        ),
        "chunk_key_encoding": must.one_of({"name": "default", "configuration": {"separator": "/"}}),
        "codecs": must.items(
            must.fields({"name": must.one_of("sharding_indexed"), "configuration": _sharding}, others=True)
        ),
        "attributes": must.map_of(must.text(1024), must.anything, 1024),
        "dimension_names": must.list_of(must.text(256), _MOST_DIMENSIONS),
    },
    {"fill_value": must.anything, "storage_transformers": must.list_of(must.anything, 0)},
    others=True,
)


@dataclass(frozen=True)
class ArrayLayout:
    """How one array is cut into files and chunks."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    """Rows of one chunk."""
    file_rows: int
    """Rows of one file."""
    compressed: bool
    dimension_names: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def num_files(self) -> int:
        """Files that hold rows."""
        return -(-self.shape[0] // self.file_rows)

    @property
    def row_bytes(self) -> int:
        """Size of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def file_name(self, number: int) -> str:
        """Path of a file below the array's folder."""
        return "/".join(("c", str(number), *["0"] * (len(self.shape) - 1)))

    def least_file_bytes(self, number: int) -> int:
        """What a file needs at least for its index and its chunks."""
        rows = min(self.file_rows, self.shape[0] - number * self.file_rows)
        num_chunks = -(-rows // self.chunk_rows)
        per_chunk = 1 if self.compressed else self.chunk_rows * self.row_bytes
        index = _PLACE_BYTES * (self.file_rows // self.chunk_rows) + _CRC_BYTES
        return num_chunks * (per_chunk + _CRC_BYTES) + index


def read_layout(metadata: Any) -> ArrayLayout:
    """The layout of an array of this format.

    Raises:
        ValueError: it is something else, or beyond every bound.
    """
    _array(metadata, "zarr.json")
    sharding = metadata["codecs"][0]["configuration"]
    shape, grid = tuple(metadata["shape"]), metadata["chunk_grid"]["configuration"]["chunk_shape"]
    chunk = sharding["chunk_shape"]
    names = [codec["name"] for codec in sharding["codecs"]]
    if not shape or len({len(shape), len(grid), len(chunk), len(metadata["dimension_names"])}) != 1:
        raise ValueError("zarr.json: shape, chunks and dimension names disagree about the number of dimensions")
    if names not in _INNER_CODECS or [codec["name"] for codec in sharding["index_codecs"]] != ["bytes", "crc32c"]:
        raise ValueError(f"zarr.json: expected the codecs bytes, zstd or none, crc32c, got {names}")
    if any(size < 1 for size in (*shape[1:], *grid, *chunk)) or not list(shape[1:]) == grid[1:] == chunk[1:]:
        raise ValueError("zarr.json: expected chunks of whole rows with at least one value")
    if grid[0] % chunk[0]:
        raise ValueError("zarr.json: chunks do not divide their file")
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    layout = ArrayLayout(
        shape, dtype, chunk[0], grid[0], "zstd" in names, tuple(metadata["dimension_names"]), metadata["attributes"]
    )
    if layout.compressed:
        must.count(_MOST_ROW_BYTES)(layout.row_bytes, "zarr.json: bytes of a compressed row")
        must.count(_MOST_CHUNK_BYTES)(layout.chunk_rows * layout.row_bytes, "zarr.json: bytes of a compressed chunk")
    return layout


def check_files(layout: ArrayLayout, name: str, files: Mapping[str, FileEntry]) -> str | None:
    """What is wrong with the listed files of array ``name``: one that is missing, or too small for its rows."""
    if layout.num_files > len(files):
        return f"{count_of(layout.num_files, 'file')} by its shape, {len(files)} in the completion record"
    for number in range(layout.num_files):
        path = f"{name}/{layout.file_name(number)}"
        if path not in files:
            return f"{path} is not in the completion record"
        if files[path].size_bytes < layout.least_file_bytes(number):
            return f"{path} has {files[path].size_bytes} bytes, its rows need {layout.least_file_bytes(number)}"
    return None
