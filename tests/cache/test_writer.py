"""The writer's guards: the first record wins, durable before it is seen, and nothing left of one that died."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pea.cache import ArraySpec, Cache, ShardWriter
from pea.cache.array_writer import ArrayWriter
from pea.cache.audit import audit, repair
from pea.cache.removals import add_removed
from pea.cache.takedown import remove_samples
from pea.errors import CacheError, LeaseLostError
from pea.storage import leases
from pea.storage.durable import temporary_sibling
from tests.cache_helpers import CacheMaker, content, identity, store_of


@pytest.fixture
def make_cache(tmp_path: Path) -> CacheMaker:
    """Writes each cache anew: the writing is what is tested here."""
    return CacheMaker(tmp_path / "cache", anew=True)


@pytest.fixture
def cache(make_cache: CacheMaker) -> Cache:
    return Cache.create_or_resume(make_cache.directory, identity(["a"]))


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of two rows, so that a writer has written much before it is finished."""
    monkeypatch.setattr(ArraySpec, "rows_per_file", 2)
    monkeypatch.setattr(ArraySpec, "rows_per_chunk", 2)


def open_writer(maker: CacheMaker, cache: Cache) -> ShardWriter:
    """A writer that has everything and is not finished."""
    (plan,) = cache.manifest.parts
    writer = ShardWriter(cache, "a", "p000", maker.schema(plan))
    maker.append(writer, plan, "24x32", maker.keys("a", "24x32"))
    return writer


def names(cache: Cache) -> list[str]:
    return sorted(path.name for path in Path(cache.shard_dir("a")).iterdir())


def test_of_two_writers_the_first_to_finish_wins(make_cache: CacheMaker, cache: Cache) -> None:
    with open_writer(make_cache, cache) as first, open_writer(make_cache, cache) as second:
        won = second.finish()
        assert first.finish() == won
    assert names(cache) == sorted(["p000.json", won.store])
    assert audit(cache.directory).problems == []
    with pytest.raises(CacheError, match="finished already"):
        open_writer(make_cache, cache)
    assert Cache.open(cache.directory).num_samples == 4


def test_a_living_writer_is_left_alone(make_cache: CacheMaker, cache: Cache) -> None:
    with open_writer(make_cache, cache) as writer:
        during = names(cache)
        assert len(during) == 2, "store and lease"
        found = audit(cache.directory)
        assert [each.kind for each in found.problems] == ["unfinished"]
        repair(cache, found)
        assert names(cache) == during
        writer.finish()
    assert audit(cache.directory).problems == []


@pytest.mark.slow
def test_what_a_dead_writer_left_is_garbage_that_repair_and_the_next_run_clear(
    make_cache: CacheMaker, cache: Cache
) -> None:
    code = f"""
import os, signal
from pathlib import Path
from pea.cache import Cache
from tests.cache_helpers import CacheMaker
from tests.cache.test_writer import ArraySpec, open_writer
ArraySpec.rows_per_file = ArraySpec.rows_per_chunk = 2
open_writer(CacheMaker(Path({str(make_cache.directory)!r})), Cache.open({str(make_cache.directory)!r}, partial=True))
os.kill(os.getpid(), signal.SIGKILL)
"""
    for clear in (lambda: repair(cache, audit(cache.directory)), lambda: open_writer(make_cache, cache).abort()):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
        assert len(names(cache)) == 2
        assert [each.kind for each in audit(cache.directory).problems].count("garbage") == 2
        clear()
        assert names(cache) == []


@pytest.mark.slow
def test_temporary_files_of_dead_writers_go(make_cache: CacheMaker, cache: Cache) -> None:
    """Single files have no lease: their age tells."""
    make_cache.fill(cache.identity)
    for work in (
        lambda: make_cache.fill(cache.identity),
        lambda: repair(cache, audit(cache.directory)),
        lambda: remove_samples(cache, "a", ["a-24x32-1"]),
    ):
        left = [temporary_sibling(Path(cache.directory / name)) for name in ("manifest.1.json", "removed/x.json") * 2]
        left[0].parent.joinpath("removed").mkdir(exist_ok=True)
        for path in left:
            path.write_text("half of a f")
        for path in left[:2]:
            os.utime(path, (time.time() - 3600,) * 2)
        work()
        assert [path.exists() for path in left] == [False, False, True, True]
        for path in left[2:]:
            path.unlink()


def test_what_a_writer_left_that_ended_after_its_publication_goes(make_cache: CacheMaker, cache: Cache) -> None:
    """Its lease, and what it took the place of; nothing of a living one, and nothing when the cache is only read."""
    filled = make_cache.fill(cache.identity)
    folder, whole = Path(cache.shard_dir("a")), names(cache)
    dead, living = (folder / f"p000-{letter * 12}.zarr.0.lease" for letter in "ab")
    for lease in (dead, living):
        lease.write_text("{}")
    os.utime(dead, (time.time() - 3600,) * 2)
    (folder / "p000-cccccccccccc.zarr").mkdir()
    assert filled.plan() == [] and len(names(cache)) == len(whole) + 3
    make_cache.fill(cache.identity)
    assert names(cache) == sorted([*whole, living.name])


@pytest.mark.slow
def test_a_look_at_the_clock_that_a_dead_process_left_is_garbage(make_cache: CacheMaker, cache: Cache) -> None:
    folder = Path(cache.shard_dir("a"))
    folder.mkdir(parents=True)
    left = [folder / name for name in (".clock.tmp-aa", "..clock.tmp-bb.tmp-cc", ".clock.tmp-dd")]
    for path in left:
        path.touch()
    for path in left[:2]:
        os.utime(path, (time.time() - 3600,) * 2)
    assert [each.kind for each in audit(cache.directory).problems].count("garbage") == 2
    make_cache.fill(cache.identity)
    assert [path.exists() for path in left] == [False, False, True]


def test_a_writer_that_lost_its_lease_publishes_nothing(
    make_cache: CacheMaker, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(make_cache, cache)
    with monkeypatch.context() as patch:
        now = leases._now() + leases.EXPIRY_S + 1  # it slept
        patch.setattr(leases, "_now", lambda: now)
        with pytest.raises(LeaseLostError, match="the lease is lost"):
            writer.finish()
    assert len(cache.plan()) == 1


@pytest.mark.slow
def test_repair_withdraws_only_what_it_looked_at(make_cache: CacheMaker) -> None:
    """A part that was made anew since it was checked stays."""
    cache = make_cache.fill(identity(["a"]))
    victim = next(store_of(cache).rglob("noise_pred/c/0/0/0/0"))
    victim.write_bytes(b"")
    first, second = audit(cache.directory), audit(cache.directory)
    repair(cache, first)
    assert make_cache.fill(identity(["a"])).plan() == []
    repair(cache, second)
    assert cache.plan() == []
    assert audit(cache.directory).problems == []


@pytest.mark.slow
def test_a_sample_that_is_removed_while_it_is_written_is_not_published(make_cache: CacheMaker, cache: Cache) -> None:
    writer = open_writer(make_cache, cache)
    add_removed(cache.directory, "a", ["a-24x32-1"])
    with pytest.raises(CacheError, match="were taken down while it was written"):
        writer.finish()
    assert names(cache) == []
    assert make_cache.fill(identity(["a"])).num_samples == 3


def test_a_sample_that_is_removed_at_the_last_moment_is_withdrawn(
    make_cache: CacheMaker, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the writer's last look, before its record is there: the other side may have looked for records already."""
    import pea.cache.writer as module

    original = module.publish

    def publish(*arguments: object) -> bool:
        add_removed(cache.directory, "a", ["a-24x32-1"])
        return original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", publish)
        with pytest.raises(CacheError, match="were taken down while it was written"):
            open_writer(make_cache, cache).finish()
    files = [path for path in Path(cache.directory).rglob("*") if path.is_file()]
    assert not [path for path in files if b"a-24x32-1" in path.read_bytes()]
    assert make_cache.fill(identity(["a"])).num_samples == 3
    assert audit(cache.directory).problems == []


def test_rows_are_written_in_blocks(make_cache: CacheMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write per array and file, however many appends: row by row is an order of magnitude slower."""
    monkeypatch.setattr(ArraySpec, "rows_per_file", 64)
    writes: list[str] = []
    original = ArrayWriter.write

    def counting(self: ArrayWriter, rows: np.ndarray) -> None:
        writes.append(f"{self.name} {len(rows)}")
        original(self, rows)

    monkeypatch.setattr(ArrayWriter, "write", counting)
    make_cache.samples_per_tar = 12
    make_cache.fill(identity(["a"]))
    assert "24x32/latents_mean 12" in writes and "24x32/noise_pred 36" in writes, "in one piece"
    assert len(writes) == len({write.split()[0] for write in writes})


def test_everything_is_durable_before_it_is_published(make_cache: CacheMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file and folder is fsynced before the record is created; the record, and its folder, after."""
    events: list[tuple[str, str]] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def link(source: str, target: str) -> None:
        events.append(("create", str(target)))
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    cache = make_cache.fill(identity(["a"]))
    store, folder = store_of(cache), str(cache.shard_dir("a"))
    published = events.index(("create", f"{folder}/p000.json"))
    synced = {path for kind, path in events[:published] if kind == "fsync"}
    assert {str(path) for path in (store, *store.rglob("*"))} <= synced
    assert {folder, os.path.dirname(folder), str(cache.directory)} <= synced
    store_made = max(i for i, event in enumerate(events[:published]) if event == ("fsync", str(store)))
    assert ("fsync", folder) in events[store_made:published], "the store's own name, too"
    assert ("fsync", folder) in events[published:]


def test_an_aborted_writer_leaves_nothing(make_cache: CacheMaker, cache: Cache) -> None:
    def fail() -> None:
        with open_writer(make_cache, cache):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with open_writer(make_cache, cache):
        pass  # leaving without finish is no publication either
    assert names(cache) == []
    assert len(cache.plan()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["append", "durable", "record", "done"])
def test_a_killed_writer_is_made_good(make_cache: CacheMaker, moment: str) -> None:
    """Killed anywhere, the shard is either finished or rebuilt to the same rows."""
    undisturbed = CacheMaker(make_cache.directory.with_name("undisturbed")).fill(identity(["a"]))
    code = f"""
import os, signal
from pathlib import Path
from tests.cache_helpers import CacheMaker, identity
from pea.cache import columns, writer
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
moment = {moment!r}
if moment == "append": columns.BucketWriter.finish = die
if moment == "durable": writer.StoreFiles.finish = die
if moment == "record": writer.publish = die
if moment == "done": writer.clear_garbage = lambda folder, part: die() if (folder / "p000.json").exists() else []
CacheMaker(Path({str(make_cache.directory)!r})).fill(identity(["a"]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    cache = make_cache.fill(identity(["a"]))
    assert content(cache) == content(undisturbed)
    assert names(cache) == sorted(["p000.json", store_of(cache).name])
    assert audit(cache.directory).problems == []


@pytest.mark.slow
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


def test_wrong_rows_are_refused(make_cache: CacheMaker, cache: Cache) -> None:
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


def test_texts_that_no_reader_would_take_are_not_written(
    make_cache: CacheMaker, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit: Callable[[int], int] = lambda count: 10 * count  # noqa: E731
    monkeypatch.setattr("pea.cache.columns.most_text_bytes", limit)
    with pytest.raises(CacheError, match="texts too long to be stored; expected 40"):
        open_writer(make_cache, cache).finish()
    assert names(cache) == []
