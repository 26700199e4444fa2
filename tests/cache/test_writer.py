"""The writer's guards: one writer, whole blocks, durable before it is seen, and nothing left of one that died."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pea.cache import Cache, ShardWriter
from pea.cache.zarr_files import ArrayFiles
from pea.errors import CacheError, ShardLockedError
from pea.storage.durable import atomic_write
from pea.storage.locks import FileLock
from tests.cache_helpers import CacheMaker, identity


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
        "from pathlib import Path; from pea.storage.locks import FileLock;"
        f"FileLock(Path({str(tmp_path / 'x.lock')!r}));"
        "print('locked', flush=True); import time; time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        with pytest.raises(ShardLockedError):
            FileLock(tmp_path / "x.lock")
        process.kill()
    FileLock(tmp_path / "x.lock").release()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(CacheError, match=r"cannot lock the file; got .*No locks available") as caught:
        FileLock(tmp_path / "x.lock")
    assert not isinstance(caught.value, ShardLockedError), "nobody waits for a lock that never comes"


def test_rows_are_written_in_blocks(make_cache: CacheMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write per array and file, however many appends: row by row is an order of magnitude slower."""
    writes: list[str] = []
    original = ArrayFiles.write

    def counting(self: ArrayFiles, rows: np.ndarray) -> None:
        writes.append(f"{self.name} {len(rows)}")
        original(self, rows)

    monkeypatch.setattr(ArrayFiles, "write", counting)
    make_cache.samples_per_tar = 12
    make_cache.fill(identity(["a"]))
    assert "latents_mean 12" in writes and "noise_pred 36" in writes, "in one piece"
    assert len(writes) == len({write.split()[0] for write in writes})


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
from pea.cache import columns, writer
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
moment = {moment!r}
if moment == "append": columns.BucketWriter.finish = die
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
