"""The known traps of zarr and of file systems: each test shows the trap, or fails without its guard."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pea.cache import Cache, ShardWriter
from pea.cache.files import FileLock, atomic_write
from pea.errors import CacheError, PeaError, ShardDamagedError, ShardLockedError, ShardUnfinishedError
from tests.cache_helpers import CacheMaker, identity

VALUES = "features/mid_block/values"


@pytest.fixture
def filled(make_cache: CacheMaker) -> Cache:
    return make_cache.fill()


def chunk_file(cache: Cache, array: str = VALUES, tar: str = "a") -> Path:
    (path,) = [p for p in (cache.shard_dir(tar) / "p000.zarr" / "24x32" / array / "c").rglob("*") if p.is_file()]
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
    assert not plain(filled.shard_dir("a") / "p000.zarr").any()  # the trap
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
    store = filled.shard_dir("a") / "p000.zarr"
    array = zarr.open_group(store, mode="r+")[f"24x32/{VALUES}"]
    assert isinstance(array, zarr.Array)
    array[:] = 0  # zarr's default leaves all-zero chunks out
    with pytest.raises(ShardDamagedError):
        read(filled)


def test_a_second_writer_is_refused(make_cache: CacheMaker) -> None:
    cache = Cache.create_or_resume(make_cache.directory, identity(["a"]))
    (plan,) = cache.plan()
    with ShardWriter(cache, "a", "p000", make_cache.schema(plan)) as first:
        with pytest.raises(ShardLockedError, match="another writer"):
            ShardWriter(cache, "a", "p000", make_cache.schema(plan))
        make_cache.append(first, plan, "24x32", make_cache.keys("a", "24x32"))
        first.finish()
    with pytest.raises(CacheError, match="finished already"):
        ShardWriter(cache, "a", "p000", make_cache.schema(plan))
    assert Cache.open(cache.directory).num_samples == 4


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path; from pea.cache.files import FileLock; FileLock(Path({str(tmp_path / 'x.lock')!r}));"
        "print('locked', flush=True); import time; time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        with pytest.raises(ShardLockedError):
            FileLock(tmp_path / "x.lock")
        process.kill()
    FileLock(tmp_path / "x.lock").release()


def test_rows_are_written_in_blocks(make_cache: CacheMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write per array and file, however many appends: row by row is an order of magnitude slower."""
    writes: list[str] = []
    original = zarr.Array.__setitem__

    def counting(self: zarr.Array, *arguments: object) -> None:  # type: ignore[type-arg]
        writes.append(self.path)
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(zarr.Array, "__setitem__", counting)
    make_cache.samples_per_tar = 12
    make_cache.fill(identity(["a"]))
    assert len(writes) == len(set(writes))


def test_bfloat16_is_kept_as_its_bits() -> None:
    with pytest.raises((TypeError, ValueError)):  # the trap
        zarr.create_array({}, shape=(1,), dtype="bfloat16")
    from pea.cache import base_arrays

    spec = base_arrays((4, 8, 8), "float32", "bfloat16")[-1]
    assert (spec.dtype, spec.attributes["bits"]) == ("uint16", "bfloat16")


def test_everything_is_durable_before_it_is_published(make_cache: CacheMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file and directory is fsynced before the rename that shows it; each rename's directory after."""
    events: list[tuple[str, str]] = []
    real_fsync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def fsync(descriptor: int) -> None:
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def renamed(real: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def rename(source: str, target: str) -> None:
            events.append(("rename", str(target)))
            real(source, target)

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed(real_rename))  # type: ignore[arg-type]
    monkeypatch.setattr(os, "replace", renamed(real_replace))  # type: ignore[arg-type]
    cache = make_cache.fill(identity(["a"]))
    directory = str(cache.shard_dir("a"))
    store, record = f"{directory}/p000.zarr", f"{directory}/p000.json"
    published = events.index(("rename", store))
    synced = {path.replace("\0", "") for kind, path in events[:published] if kind == "fsync"}
    files = list(Path(store).rglob("*"))
    hidden = {path.split("/", len(store.split("/")))[-1] for path in synced if "/.p000.zarr" in path}
    assert {str(p.relative_to(store)) for p in files} <= hidden
    assert ("fsync", directory) in events[published : events.index(("rename", record))]
    assert events.index(("rename", record)) > published
    assert ("fsync", directory) in events[events.index(("rename", record)) :]


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_reading_works_in_child_processes(filled: Cache, context: str) -> None:
    expected = read(filled)
    with multiprocessing.get_context(context).Pool(1) as pool:
        assert np.array_equal(pool.apply_async(read, (filled,)).get(timeout=60), expected)


def test_contiguous_rows_need_few_chunks(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of rows costs one read per chunk it touches: scattered row reads are never needed."""
    from pea.cache.chunks import StoredArray

    reads: list[object] = []
    original = StoredArray._read_chunk
    monkeypatch.setattr(StoredArray, "_read_chunk", lambda *args: reads.append(0) or original(*args))
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


def test_an_aborted_writer_leaves_nothing(make_cache: CacheMaker) -> None:
    cache = Cache.create_or_resume(make_cache.directory, identity(["a"]))
    (plan,) = cache.plan()

    def fail() -> None:
        with ShardWriter(cache, "a", "p000", make_cache.schema(plan)) as writer:
            make_cache.append(writer, plan, "24x32", ["k"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with ShardWriter(cache, "a", "p000", make_cache.schema(plan)):
        pass  # leaving without finish is no publication either
    assert list(cache.shard_dir("a").iterdir()) == []
    assert len(cache.plan()) == 1


@pytest.mark.parametrize("moment", ["append", "publish", "record", "done"])
def test_a_killed_writer_is_made_good(make_cache: CacheMaker, moment: str) -> None:
    """Killed anywhere, the shard is either finished or rebuilt to the same bytes."""
    undisturbed = CacheMaker(make_cache.directory.with_name("undisturbed")).fill(identity(["a"]))
    code = f"""
import os, signal
from pathlib import Path
from tests.cache_helpers import CacheMaker, identity
import pea.cache.writer as writer
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
moment = {moment!r}
if moment == "append": writer._BucketWriter.finish = die
if moment == "publish": writer.ShardWriter._publish = die
if moment == "record": writer.write_record = die
if moment == "done": writer.ShardWriter.abort = die
CacheMaker(Path({str(make_cache.directory)!r})).fill(identity(["a"]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    cache = make_cache.fill(identity(["a"]))
    one, other = (
        {
            p.relative_to(c.directory): p.read_bytes()
            for p in c.directory.rglob("*")
            if p.is_file() and ".lock" not in p.name
        }
        for c in (undisturbed, cache)
    )
    assert one == other


def test_a_full_disk_is_said_in_one_line_and_healed(make_cache: CacheMaker) -> None:
    """With a real limit of the system: files above 3,000 bytes cannot be written."""
    code = f"""
import resource, signal
from pathlib import Path
from pea.errors import DiskFullError
from tests.cache_helpers import CacheMaker, identity
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
maker = CacheMaker(Path({str(make_cache.directory)!r}), samples_per_tar=40)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    maker.fill(identity(["a"]))
except DiskFullError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.count("\n") == 1 and "the disk is full" in out and "run the same command again" in out
    assert list((make_cache.directory / "shards" / "a").iterdir()) == []
    make_cache.samples_per_tar = 40
    assert make_cache.fill(identity(["a"])).num_samples == 40


def test_a_damaged_completion_record_is_refused(filled: Cache) -> None:
    path = filled.shard_dir("a") / "p000.json"
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


def test_atomic_write_without_replace(tmp_path: Path) -> None:
    atomic_write(tmp_path / "f", b"1", replace=False)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "f", b"2", replace=False)
    atomic_write(tmp_path / "f", b"3")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"3")]


def test_wrong_rows_are_refused(make_cache: CacheMaker) -> None:
    cache = Cache.create_or_resume(make_cache.directory, identity(["a"]))
    (plan,) = cache.plan()
    schema = make_cache.schema(plan)
    specs = schema.buckets["24x32"]

    def rows(level: str, count: int) -> dict[str, np.ndarray]:
        return {s.name: np.zeros((count, *s.shape), s.dtype) for s in specs if s.level == level}

    with ShardWriter(cache, "a", "p000", schema) as writer:

        def append(
            bucket: str = "24x32", keys: tuple[str, ...] = ("k",), draws: int = 3, **changed: np.ndarray
        ) -> None:
            samples = {**rows("sample", len(keys)), **changed}
            captions = [{} for _ in keys]
            writer.append(bucket, keys=keys, captions=captions, samples=samples, records=rows("record", draws))

        for arguments, problem in (
            ({"keys": ("x", "x"), "draws": 6}, "added twice"),
            ({"bucket": "9x9"}, "no such bucket"),
            ({"keys": ("1",), "draws": 2}, "another shape"),
            ({"keys": ("2",), "extra": np.zeros(1)}, "missing or extra: extra"),
            ({"keys": ("3",), "time_ids": np.zeros((1, 6), np.float32)}, "another type"),
            ({"keys": ("4",), "latents_mean": np.full((1, 2, 3, 4), np.nan, np.float32)}, "NaN"),
        ):
            with pytest.raises(CacheError, match=problem):
                append(**arguments)  # type: ignore[arg-type]
        append()
        with pytest.raises(CacheError, match="added twice"):
            append()


def test_unknown_rows_and_arrays(filled: Cache) -> None:
    bucket = filled.shards[0].buckets["24x32"]
    with pytest.raises(CacheError, match="no such array"):
        bucket.read(["none"], 0, 1)
    with pytest.raises(IndexError):
        bucket.read([VALUES], 5, 13)
    with pytest.raises(CacheError, match="no such shard"):
        filled.part_plan("a", "p001")
    started = time.perf_counter()
    bucket.read([VALUES], 0, 0)
    assert time.perf_counter() - started < 1
