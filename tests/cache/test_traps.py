"""The known traps of zarr when reading: each test shows the trap, or fails without its guard."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from pea.cache import Cache, ShardWriter
from pea.cache.rows_reading import RowsReading
from pea.errors import CacheError, PeaError, ShardDamagedError, ShardUnfinishedError
from tests.cache_helpers import CacheMaker, identity, store_of

VALUES = "features/mid_block/values"


@pytest.fixture
def filled(make_cache: CacheMaker) -> Cache:
    return make_cache.fill()


def chunk_file(cache: Cache, array: str = VALUES, tar: str = "a") -> Path:
    (path,) = [p for p in (store_of(cache, tar) / "24x32" / array / "c").rglob("*") if p.is_file()]
    return path


def plain(path: Path, array: str = VALUES) -> np.ndarray:
    """What an ordinary zarr reader sees."""
    found = zarr.open_group(path, mode="r")[f"24x32/{array}"]
    assert isinstance(found, zarr.Array)
    return np.asarray(found[:])


def read(cache: Cache, array: str = VALUES) -> np.ndarray:
    bucket = Cache.open(cache.directory).shards[0].buckets["24x32"]
    return bucket.read([array], 0, bucket.num_records)[array]


def test_a_missing_chunk_is_an_error_and_not_the_fill_value(filled: Cache) -> None:
    chunk_file(filled).unlink()
    assert not plain(store_of(filled)).any()  # the trap
    with pytest.raises(ShardDamagedError, match="No such file"):
        read(filled)


def test_a_chunk_that_goes_missing_after_opening_is_an_error(filled: Cache) -> None:
    bucket = filled.shards[0].buckets["24x32"]
    bucket.read([VALUES], 0, 1)
    chunk_file(filled).unlink()
    with pytest.raises(ShardDamagedError, match="No such file"):
        bucket.read([VALUES], 0, 1)


def test_a_zero_length_chunk_is_an_error(filled: Cache) -> None:
    os.truncate(chunk_file(filled), 0)
    with pytest.raises(ShardDamagedError, match="0 bytes instead of"):
        read(filled)


def test_a_file_cut_after_opening_is_an_error(filled: Cache) -> None:
    bucket = filled.shards[0].buckets["24x32"]
    bucket.read([VALUES], 0, 1)
    path = chunk_file(filled)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ShardDamagedError, match="bytes instead of"):
        bucket.read([VALUES], 0, 1)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_every_bit_flip_is_an_error(filled: Cache, place: float) -> None:
    path = chunk_file(filled)
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)
    with pytest.raises(ShardDamagedError, match="crc32c"):
        read(filled)


def test_changed_metadata_are_an_error(filled: Cache) -> None:
    path = chunk_file(filled).parents[4] / "zarr.json"
    text = path.read_text()
    assert '"float16"' in text
    path.write_text(text.replace('"float16"', '"uint16" '))
    with pytest.raises(ShardDamagedError, match="sha256"):
        read(filled)


def test_all_zero_chunks_are_stored(make_cache: CacheMaker) -> None:
    cache = Cache.create_or_resume(make_cache.directory, identity(["a"]))
    (plan,) = cache.plan()
    schema = make_cache.schema(plan)
    with ShardWriter(cache, "a", "p000", schema) as writer:
        rows = {
            level: {s.name: np.zeros((n, *s.shape), s.dtype) for s in schema.buckets["24x32"] if s.level == level}
            for level, n in (("sample", 1), ("record", 3))
        }
        writer.append("24x32", keys=["k"], captions=[{}], samples=rows["sample"], records=rows["record"])
        writer.finish()
    chunk_file(cache)  # exists
    assert not read(cache).any()


def test_a_chunk_that_was_never_written_is_an_error(filled: Cache) -> None:
    """Another tool may leave a chunk out of a shard file, with a valid index."""
    store = store_of(filled)
    array = zarr.open_group(store, mode="r+")[f"24x32/{VALUES}"]
    assert isinstance(array, zarr.Array)
    array[:] = 0  # zarr's default leaves all-zero chunks out
    with pytest.raises(ShardDamagedError):
        read(filled)


def test_bfloat16_is_kept_as_its_bits() -> None:
    with pytest.raises((TypeError, ValueError)):  # the trap
        zarr.create_array({}, shape=(1,), dtype="bfloat16")
    from pea.cache import base_arrays

    spec = base_arrays((4, 8, 8), "float32", "bfloat16")[-1]
    assert (spec.dtype, spec.attributes["bits"]) == ("uint16", "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_reading_works_in_child_processes(filled: Cache, context: str) -> None:
    expected = read(filled)
    with multiprocessing.get_context(context).Pool(1) as pool:
        assert np.array_equal(pool.apply_async(read, (filled,)).get(timeout=60), expected)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_of_a_process_that_has_read_is_refused_in_one_line(filled: Cache) -> None:
    """tensorstore would end the process: its threads are not in the fork."""
    read(filled)
    with (
        multiprocessing.get_context("fork").Pool(1) as pool,
        pytest.raises(
            CacheError, match=r"a forked process cannot read the cache.*Start workers with \"spawn\""
        ) as caught,
    ):
        pool.apply_async(read, (filled,)).get(timeout=60)
    assert str(caught.value).count("\n") == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_of_a_process_that_has_not_read_reads(filled: Cache) -> None:
    code = (
        "import multiprocessing as m; from pea.cache import Cache\n"
        "def look(c): return len(c.shards[0].buckets['24x32'].read(['noise_pred'], 0, 3)['noise_pred'])\n"
        f"print(m.get_context('fork').Pool(1).apply(look, (Cache.open({str(filled.directory)!r}),)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "3\n"


def test_contiguous_rows_are_one_request(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of rows costs one read, whatever it holds: scattered row reads are never needed."""
    reads: list[object] = []
    original = RowsReading.begin
    monkeypatch.setattr(RowsReading, "begin", lambda *args: reads.append(0) or original(*args))
    assert len(read(filled)) == 12
    assert len(reads) == 1


def test_an_unfinished_shard_is_refused_and_completed(make_cache: CacheMaker) -> None:
    cache = Cache.create_or_resume(make_cache.directory, identity())
    make_cache.write(cache, cache.plan()[0])
    with pytest.raises(ShardUnfinishedError, match=r"1 of 2 shards are not finished; got b/p000"):
        Cache.open(cache.directory)
    part = Cache.open(cache.directory, partial=True)
    assert [shard.tar for shard in part.shards] == ["a"] and part.num_samples == 4
    assert make_cache.fill().num_samples == 8


def test_a_damaged_completion_record_is_refused(filled: Cache) -> None:
    path = Path(filled.shard_dir("a") / "p000.json")
    data = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(data), 60).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(PeaError, match=r"p000|manifest"):
            Cache.open(filled.directory).shards[0].buckets["24x32"].read([VALUES], 0, 1)
    for length in (0, 1, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ShardDamagedError, match="completion record is damaged"):
            Cache.open(filled.directory).shards[0].parts[0]


def test_a_shard_of_another_cache_is_refused(filled: Cache, tmp_path: Path) -> None:
    other = CacheMaker(tmp_path / "other").fill(identity(**{"cache.seed": 1}))
    shutil.rmtree(filled.shard_dir("a"))
    shutil.copytree(other.shard_dir("a"), filled.shard_dir("a"))
    with pytest.raises(PeaError, match="made from something else"):
        Cache.open(filled.directory)


def test_unknown_rows_and_arrays(filled: Cache) -> None:
    bucket = filled.shards[0].buckets["24x32"]
    with pytest.raises(CacheError, match="no such array"):
        bucket.read(["none"], 0, 1)
    with pytest.raises(IndexError):
        bucket.read([VALUES], 5, 13)
    with pytest.raises(CacheError, match="no such shard"):
        filled.part_plan("a", "p001")
    assert len(bucket.read([VALUES], 0, 0)[VALUES]) == 0
