"""Arrays written file by file: what zarr and the cache's own reader find in them, and how they are cut and packed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pea.cache.array_writer import StoreArrays
from pea.cache.completion import FileEntry
from pea.cache.store_files import StoreFiles
from pea.cache.stored_array import StoredArray
from pea.errors import ShardDamagedError
from pea.storage.location import Location

DTYPES = ("float32", "float16", "uint16", "uint8", "int8", "int64", "uint64", "uint32", "bool")


def write(
    store: Path, rows: np.ndarray, chunk_rows: int, chunks_per_file: int, name: str = "a/b"
) -> dict[str, FileEntry]:
    """A store with one array of files of equal size; the last may be shorter. Returns its files."""
    files = StoreFiles(Location.parse(store))
    arrays = StoreArrays(files.put, {"made_with": "a test"})
    names = ["record", *(f"d{number}" for number in range(1, rows.ndim))]
    file_rows = chunk_rows * chunks_per_file
    array = arrays.create_array(
        name, rows.dtype, rows.shape[1:], names, {"units": "px"}, chunk_rows=chunk_rows, file_rows=file_rows
    )
    for start in range(0, len(rows), file_rows):
        array.write(rows[start : start + file_rows])
    arrays.finish()
    files.finish()
    return files.entries


def stored(store: Path, files: dict[str, FileEntry], name: str = "a/b") -> StoredArray:
    return StoredArray(Location.parse(store), name, files)


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    row_shape=st.sampled_from([(), (3,), (2, 4)]),
    num_rows=st.integers(0, 23),
    chunk_rows=st.integers(1, 5),
    chunks_per_file=st.integers(1, 4),
    zeros=st.booleans(),
)
def test_every_reader_finds_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    dtype: str,
    row_shape: tuple[int, ...],
    num_rows: int,
    chunk_rows: int,
    chunks_per_file: int,
    zeros: bool,
) -> None:
    store = tmp_path_factory.mktemp("store") / "s.zarr"
    rows = (np.random.default_rng(0).standard_normal((num_rows, *row_shape)) * (0 if zeros else 50)).astype(dtype)
    files = write(store, rows, chunk_rows, chunks_per_file)
    assert {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()} == files.keys()
    group = zarr.open_group(store, mode="r", zarr_format=3)
    array: Any = group["a/b"]
    assert group.attrs["made_with"] == "a test" and array.attrs["units"] == "px"
    assert (array.shape, array.dtype) == (rows.shape, rows.dtype)
    assert array.metadata.dimension_names[0] == "record"
    np.testing.assert_array_equal(array[:], rows)
    ours = stored(store, files)
    first, last = num_rows // 3, num_rows - num_rows // 4
    np.testing.assert_array_equal(ours.read(0, num_rows), rows)
    np.testing.assert_array_equal(ours.read(first, last), rows[first:last])


@pytest.mark.slow
def test_only_what_gains_by_it_is_compressed(tmp_path: Path) -> None:
    rows: dict[str, np.ndarray] = {
        "floats": np.zeros((64, 100), dtype="float16"),
        "packed": np.zeros((64, 100), dtype="uint8"),
        "numbers": np.zeros(6400, dtype="int64"),
        "text": np.zeros(6400, dtype="uint8"),
    }
    for name, values in rows.items():
        write(tmp_path / name, values, 64, 1, name)
    sizes = {name: (tmp_path / name / name / "c" / "0").stat().st_size for name in ("numbers", "text")}
    sizes |= {name: (tmp_path / name / name / "c" / "0" / "0").stat().st_size for name in ("floats", "packed")}
    overhead = 4 + 16 + 4  # crc32c of the chunk, its place, crc32c of the places
    assert (sizes["floats"], sizes["packed"]) == (12_800 + overhead, 6_400 + overhead)
    assert sizes["numbers"] < 51_200 / 4 and sizes["text"] < 6_400 / 4


def test_every_byte_of_a_raw_chunk_is_checked(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 5)).astype("float32")
    files = write(tmp_path, rows, 2, 2, "a")
    path = tmp_path / "a" / "c" / "0" / "0"
    intact = path.read_bytes()
    for place in range(len(intact)):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 4]) + intact[place + 1 :])
        with pytest.raises(ShardDamagedError, match=r"crc32c|never written"):
            stored(tmp_path, files, "a").read(0, 4)


@pytest.mark.parametrize("dtype", ["float32", "int64"])  # raw, compressed
@pytest.mark.parametrize("rows", [(0, 2), (0, 1)])  # a whole chunk, and a part of one
def test_a_chunk_that_was_left_out_is_no_row_of_zeros(tmp_path: Path, dtype: str, rows: tuple[int, int]) -> None:
    files = write(tmp_path, np.arange(4).astype(dtype), 2, 2, "a")
    path = tmp_path / "a" / "c" / "0"
    content = path.read_bytes()
    places = bytearray(content[-36:-4])  # (offset, length) of both chunks, before their crc32c
    places[:16] = b"\xff" * 16  # how zarr says that a chunk holds nothing but the fill value
    path.write_bytes(content[:-36] + places + google_crc32c.value(bytes(places)).to_bytes(4, "little"))
    assert np.array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], [0, 0, 2, 3])
    array = stored(tmp_path, files, "a")
    np.testing.assert_array_equal(array.read(2, 4), [2, 3])
    with pytest.raises(ShardDamagedError, match="never written"):
        array.read(*rows)


def test_arrays_are_written_from_any_thread(tmp_path: Path) -> None:
    rows = np.arange(12, dtype="float32").reshape(4, 3)
    found: list[dict[str, FileEntry]] = []
    for number in range(3):
        thread = threading.Thread(target=lambda n=number: found.append(write(tmp_path / str(n), rows, 2, 2)))
        thread.start()
        thread.join(30)
    assert len(found) == 3 and found[0] == found[1] == found[2]


def test_rows_are_read_to_where_they_are_wanted(tmp_path: Path) -> None:
    rows = np.arange(12, dtype="uint8").reshape(4, 3)
    files, room = write(tmp_path, rows, 1, 4), np.zeros((9, 3), dtype="uint8")
    array = stored(tmp_path, files)
    assert array.rows_apart
    array.read(1, 3, room[5:7])
    np.testing.assert_array_equal(room[4:8], [[0, 0, 0], *rows[1:3].tolist(), [0, 0, 0]])
