"""The audit finds every damage; the reader never serves it; repair and takedown touch nothing else."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pea.cache import Cache, ShardWriter
from pea.cache.audit import audit, repair
from pea.cache.completion import FileEntry, read_record, write_record
from pea.cache.takedown import remove_samples
from pea.errors import CacheError, PeaError
from pea.storage.digests import sha256_file
from tests.cache_helpers import CacheMaker, content, identity


@pytest.fixture
def filled(make_cache: CacheMaker) -> Cache:
    return make_cache.fill(identity(["a", "b"]))


def damage(path: Path, chance: random.Random) -> str:
    """Change one file in one of four ways; returns the way. A way that would change nothing is drawn again."""
    data = path.read_bytes()
    ways = ("byte", "truncate", "delete", *(("zero",) if any(data) else ()))
    way = chance.choice(ways if data else ("delete",))
    if way == "byte":
        place = chance.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ chance.randrange(1, 256)]) + data[place + 1 :])
    elif way == "truncate":
        path.write_bytes(data[: chance.randrange(len(data))])
    elif way == "delete":
        path.unlink()
    else:
        zeroed = data
        while zeroed == data:
            start = chance.randrange(len(data))
            stop = chance.randrange(start, len(data)) + 1
            zeroed = data[:start] + bytes(stop - start) + data[stop:]
        path.write_bytes(zeroed)
    return way


def corrupt_many(cache: Cache, count: int) -> None:
    """Corrupt one file at a time: whatever is read before the audit is right or an error, and the audit finds it."""
    expected = content(cache)
    chance = random.Random(7)
    files = sorted(path for path in cache.directory.rglob("*") if path.is_file())
    for _ in range(count):
        path = chance.choice(files)
        before = path.read_bytes()
        way = damage(path, chance)
        assert not path.exists() or path.read_bytes() != before
        with suppress(PeaError):
            assert content(Cache.open(cache.directory)) == expected, (path, way)
        found = audit(cache.directory, jobs=1)
        assert found.problems, (path, way)
        path.write_bytes(before)
    assert audit(cache.directory).problems == []


def test_a_healthy_cache_has_no_problems(filled: Cache) -> None:
    steps: list[tuple[int, int]] = []
    found = audit(filled.directory, progress=lambda done, total: steps.append((done, total)))
    assert found.problems == []
    assert steps == [(1, 2), (2, 2)]
    assert (found.num_parts, found.num_samples) == (2, 8)
    files = [path for path in (filled.directory / "shards").rglob("*") if path.is_file() and path.name != "p000.json"]
    assert (found.num_files, found.num_bytes) == (len(files), sum(path.stat().st_size for path in files))


def test_random_corruptions_are_found_and_never_read(filled: Cache) -> None:
    corrupt_many(filled, 60)


@pytest.mark.slow
def test_a_thousand_random_corruptions_are_found_and_never_read(make_cache: CacheMaker) -> None:
    cache = make_cache.fill(identity(["a"]))
    make_cache.fill(identity(["a"], draws=5), extend=True)
    remove_samples(Cache.open(cache.directory), "a", ["a-24x32-1"])
    corrupt_many(Cache.open(cache.directory), 1000)


def test_repair_requeues_exactly_what_is_damaged(make_cache: CacheMaker, filled: Cache) -> None:
    expected = content(filled)
    victim = next(filled.shard_dir("b").rglob("noise_pred/c/0/0/0/0"))
    victim.write_bytes(b"")
    found = audit(filled.directory)
    assert found.damaged_parts == [("b", "p000")]
    untouched = {path: path.stat().st_mtime_ns for path in filled.shard_dir("a").rglob("*")}
    assert repair(filled, found) == [("b", "p000")]
    assert filled.unfinished() == [("b", "p000")]
    assert content(make_cache.fill(identity(["a", "b"]))) == expected
    assert untouched == {path: path.stat().st_mtime_ns for path in filled.shard_dir("a").rglob("*")}
    assert audit(filled.directory).problems == []


def test_unfinished_and_stray_files_are_listed(make_cache: CacheMaker, filled: Cache) -> None:
    (filled.shard_dir("b") / "p000.json").unlink()
    (filled.directory / "notes.txt").touch()
    (filled.directory / "shards" / "z").mkdir()
    (filled.shard_dir("a") / "p007.zarr").mkdir()
    (filled.shard_dir("a") / "p000.zarr" / "extra").touch()
    kinds = sorted((each.kind, Path(each.where).name) for each in audit(filled.directory).problems)
    assert kinds == [
        ("damaged", "extra"),
        ("extra", "notes.txt"),
        ("extra", "p007.zarr"),
        ("extra", "z"),
        ("unfinished", "p000.json"),
    ]


def test_wrong_content_with_right_digests_is_found(make_cache: CacheMaker) -> None:
    """What a faulty writer would leave: draws that are not those of the key."""
    cache = Cache.create_or_resume(make_cache.directory, identity(["a"]))
    (plan,) = cache.plan()
    original = make_cache.append

    def swapped(writer: ShardWriter, plan: Any, bucket: str, keys: Any) -> None:
        real = writer.append
        writer.append = lambda *a, **k: real(*a, **{**k, "keys": list(reversed(keys))})  # type: ignore[method-assign]
        original(writer, plan, bucket, keys)
        writer.append = real  # type: ignore[method-assign]

    make_cache.append = swapped  # type: ignore[method-assign]
    make_cache.write(cache, plan)
    found = audit(cache.directory)
    assert found.problems and {each.kind for each in found.problems} == {"content"}
    assert "the draws are not those of its key" in str(found.problems[0])


def test_coverage_against_the_tars(filled: Cache, tmp_path: Path) -> None:
    def write(name: str, keys: list[str]) -> Path:
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for key in keys:
                archive.addfile(tarfile.TarInfo(f"{key}.png"), io.BytesIO())
        return tmp_path / f"{name}.tar"

    keys = [f"a-24x32-{index}" for index in range(4)]
    assert audit(filled.directory, tars=[write("a", keys)]).problems == []
    problems = audit(filled.directory, tars=[write("a", [*keys[1:], "new"]), write("c", [])]).problems
    assert [(each.where.rpartition("/")[2], each.what) for each in problems] == [
        ("new", "in the tar, but neither kept nor dropped"),
        ("a-24x32-0", "in the cache, but not in the tar"),
        ("c.tar", "this tar is not in the cache"),
    ]


def test_takedown(make_cache: CacheMaker) -> None:
    make_cache.rejected = {("a", "p000"): {"a-24x32-3"}}
    make_cache.fill(identity(["a", "b"]))
    cache = make_cache.fill(identity(["a", "b"], draws=5), extend=True)
    before = content(cache)
    secret = b"caption a-24x32-1"
    assert remove_samples(cache, "a", ["a-24x32-1", "absent"]) == ["a-24x32-1"]
    cache = Cache.open(cache.directory)
    after = content(cache)
    assert cache.shards[0].buckets["24x32"].keys == ["a-24x32-0", "a-24x32-2"]
    rows = cache.shards[0].buckets["24x32"].read(["timestep"], 0, 10)["timestep"]
    old = np.frombuffer(before["a/24x32/timestep"], np.int64)
    assert np.array_equal(rows, np.concatenate([old[:5], old[10:]]))
    assert {key: value for key, value in after.items() if key[0] == "b"} == {
        key: value for key, value in before.items() if key[0] == "b"
    }
    assert audit(cache.directory).problems == []
    stores = [path for path in cache.shard_dir("a").iterdir() if path.suffix == ".zarr"]
    assert sorted(path.name for path in stores) == ["p000.r1.zarr", "p001.r1.zarr"]
    assert not any(secret in path.read_bytes() for path in cache.shard_dir("a").rglob("*") if path.is_file())
    record = cache.shards[0].parts[0].record
    assert ("a-24x32-3", "nonfinite_teacher", "made up") in record.dropped
    assert ("a-24x32-1", "removed", "") in record.dropped


def test_what_was_removed_does_not_come_back(make_cache: CacheMaker, filled: Cache) -> None:
    remove_samples(filled, "a", ["a-24x32-1"])
    remove_samples(filled, "a", ["a-24x32-2"])
    shutil.rmtree(filled.shard_dir("a"))
    rebuilt = make_cache.fill(identity(["a", "b"]))
    assert rebuilt.shards[0].buckets["24x32"].keys == ["a-24x32-0", "a-24x32-3"]
    assert audit(rebuilt.directory).problems == []


def test_a_takedown_that_was_interrupted_is_found_and_ended(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pea.cache.takedown._rewrite", lambda *_: None)
        remove_samples(filled, "a", ["a-24x32-1"])
    problems = audit(filled.directory).problems
    assert [each.what for each in problems] == ["a-24x32-1 was removed and is still stored"]
    remove_samples(filled, "a", ["a-24x32-1"])
    assert audit(filled.directory).problems == []
    with pytest.raises(CacheError, match="no such tar"):
        remove_samples(filled, "zz", ["k"])


def test_files_of_older_caches_are_compared_by_their_sha256(filled: Cache) -> None:
    path = filled.shard_dir("a") / "p000.json"
    record, store = read_record(path), filled.shard_dir("a") / "p000.zarr"
    files = {name: FileEntry(entry.size_bytes, sha256_file(store / name)) for name, entry in record.files.items()}
    write_record(path, replace(record, files=files))
    assert audit(filled.directory).problems == []
    victim = next(store.rglob("noise_pred/c/0/0/0/0"))
    victim.write_bytes(bytes(victim.stat().st_size))
    assert [problem.where for problem in audit(filled.directory).problems] == [str(victim)]
