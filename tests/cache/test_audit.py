"""The audit finds every damage; the reader never serves it; repair and takedown touch nothing else."""

from __future__ import annotations

import io
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pea.cache import Cache, ShardWriter
from pea.cache.audit import audit, repair
from pea.cache.certificate import Certificate, read_certificate, write_certificate
from pea.cache.completion import FileEntry, read_record, record_to_bytes
from pea.cache.removals import removal_name
from pea.cache.takedown import remove_samples
from pea.errors import CacheError, PeaError
from pea.storage import Location
from pea.storage.digests import sha256_file
from tests.cache_helpers import CacheMaker, content, identity, store_of


@pytest.fixture
def filled(make_cache: CacheMaker) -> Cache:
    return make_cache.fill(identity(["a", "b"]))


def damage(path: Location, chance: random.Random) -> str:
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
        path.delete()
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
    files = list(cache.directory.list(recursive=True))
    for _ in range(count):
        path = chance.choice(files)
        before = path.read_bytes()
        way = damage(path, chance)
        assert not path.exists() or path.read_bytes() != before
        with suppress(PeaError):
            # Without its newest manifest a cache is what it was before it grew, which its identity tells.
            if path.name != "manifest.1.json" or path.exists():
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
    files = [path for tar in "ab" for path in store_of(filled, tar).rglob("*") if path.is_file()]
    assert (found.num_files, found.num_bytes) == (len(files), sum(path.stat().st_size for path in files))


@pytest.mark.parametrize(
    "count", [pytest.param(25, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.by_hand)]
)
def test_random_corruptions_in_a_bucket_are_found_and_never_read(bucket: Location, count: int) -> None:
    corrupt_many(CacheMaker(bucket / "cache").fill(identity(["a"])), count)  # type: ignore[arg-type]


@pytest.mark.slow
def test_random_corruptions_are_found_and_never_read(filled: Cache) -> None:
    corrupt_many(filled, 60)


@pytest.mark.parametrize(
    "count", [pytest.param(200, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.by_hand)]
)
def test_hundreds_of_random_corruptions_of_a_used_cache(make_cache: CacheMaker, count: int) -> None:
    """Of one that was extended, and of which a sample was taken down."""
    cache = make_cache.fill(identity(["a"]))
    make_cache.fill(identity(["a"], draws=5), extend=True)
    remove_samples(Cache.open(cache.directory), "a", ["a-24x32-1"])
    corrupt_many(Cache.open(cache.directory), count)


@pytest.mark.slow
def test_repair_requeues_exactly_what_is_damaged(make_cache: CacheMaker, filled: Cache) -> None:
    expected = content(filled)
    victim = next(store_of(filled, "b").rglob("noise_pred/c/0/0/0/0"))
    victim.write_bytes(b"")
    found = audit(filled.directory)
    assert found.damaged_parts == [("b", "p000")]
    files = list(Path(filled.shard_dir("a")).rglob("*"))
    untouched = {path: path.stat().st_mtime_ns for path in files}
    assert repair(filled, found) == [("b", "p000")]
    assert filled.unfinished() == [("b", "p000")]
    assert content(make_cache.fill(identity(["a", "b"]))) == expected
    assert untouched == {path: path.stat().st_mtime_ns for path in files}
    names = {path.name for path in Path(filled.shard_dir("b")).iterdir()}
    assert names == {"p000.2.json", store_of(filled, "b").name}, "what was withdrawn is cleared"
    assert audit(filled.directory).problems == []


def test_unfinished_and_stray_files_are_listed(make_cache: CacheMaker, filled: Cache) -> None:
    orphan = store_of(filled, "b")
    Path(filled.shard_dir("b"), "p000.json").unlink()
    Path(filled.directory, "notes.txt").touch()
    Path(filled.directory, "shards", "z").mkdir()
    Path(filled.shard_dir("a"), "p007.zarr").mkdir()
    (store_of(filled) / "extra").touch()
    kinds = sorted((each.kind, Path(each.where).name) for each in audit(filled.directory).problems)
    assert kinds == [
        ("damaged", "extra"),
        ("extra", "notes.txt"),
        ("extra", "p007.zarr"),
        ("extra", "z"),
        ("garbage", orphan.name),
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
    names = {path.name for path in Path(cache.shard_dir("a")).iterdir()}
    assert names == {"p000.1.json", "p001.1.json", store_of(cache).name, store_of(cache, part="p001").name}
    files = [path for path in Path(cache.directory).rglob("*") if path.is_file()]
    assert not [path for path in files if b"a-24x32-1" in path.read_bytes()], "no caption, and no key in clear"
    record = cache.shards[0].parts[0].record
    assert ("a-24x32-3", "nonfinite_teacher", "made up") in record.dropped
    assert (removal_name("a", "a-24x32-1"), "removed", "") in record.dropped


def test_the_certificate_forgets_a_sample_as_well(filled: Cache) -> None:
    write_certificate(filled.directory, Certificate("0" * 64, ["a/a-24x32-1", "a/a-24x32-2"], {}, 0.01, []))
    remove_samples(filled, "a", ["a-24x32-1"])
    found = read_certificate(filled.directory)
    assert found is not None and found.samples == [removal_name("a", "a-24x32-1"), "a/a-24x32-2"]


def test_removals_at_the_same_time_lose_nothing(filled: Cache) -> None:
    """Each rewrites the same parts; whoever comes second goes on from what the first one made."""
    keys = [f"a-24x32-{number}" for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda key: remove_samples(Cache.open(filled.directory), "a", [key]), keys))
    found = Cache.open(filled.directory)
    assert found.shards[0].buckets["24x32"].keys == ["a-24x32-3"]
    assert audit(found.directory).problems == []
    files = [path for path in Path(found.directory).rglob("*") if path.is_file()]
    assert not [path for path in files for key in keys if key.encode() in path.read_bytes()]


@pytest.mark.slow
def test_what_was_removed_does_not_come_back(make_cache: CacheMaker, filled: Cache) -> None:
    remove_samples(filled, "a", ["a-24x32-1"])
    remove_samples(filled, "a", ["a-24x32-2"])
    filled.shard_dir("a").delete_tree()
    rebuilt = make_cache.fill(identity(["a", "b"]))
    assert rebuilt.shards[0].buckets["24x32"].keys == ["a-24x32-0", "a-24x32-3"]
    assert audit(rebuilt.directory).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("repairing", [False, True])
def test_a_takedown_that_was_interrupted_is_found_and_ended(
    filled: Cache, monkeypatch: pytest.MonkeyPatch, repairing: bool
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pea.cache.takedown.clear_garbage", die)
        patch.setattr("pea.cache.takedown.copy_rows", die)
        with pytest.raises(KeyboardInterrupt):
            remove_samples(filled, "a", ["a-24x32-1"])
    problems = audit(filled.directory).problems
    assert [(each.kind, each.tar) for each in problems] == [("removed", "a")]
    assert "a-24x32-1" not in str(problems)
    if repairing:
        repair(filled, audit(filled.directory))
    else:
        remove_samples(filled, "a", ["a-24x32-1"])
    assert not any(b"a-24x32-1" in path.read_bytes() for path in Path(filled.directory).rglob("*") if path.is_file())
    assert audit(filled.directory).problems == []
    with pytest.raises(CacheError, match="no such tar"):
        remove_samples(filled, "zz", ["k"])


def test_files_of_older_caches_are_compared_by_their_sha256(filled: Cache) -> None:
    path, store = filled.shard_dir("a") / "p000.json", store_of(filled)
    record = read_record(path)
    files = {name: FileEntry(entry.size_bytes, sha256_file(store / name)) for name, entry in record.files.items()}
    path.write_bytes(record_to_bytes(replace(record, files=files)))
    assert audit(filled.directory).problems == []
    victim = next(store.rglob("noise_pred/c/0/0/0/0"))
    victim.write_bytes(bytes(victim.stat().st_size))
    assert [problem.where for problem in audit(filled.directory).problems] == [str(victim)]
