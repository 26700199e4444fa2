"""A cache in a bucket is read through copies on this machine's disk: once, verified, within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from pea.batches.opening import open_rows
from pea.cache import Cache
from pea.cache.audit import audit
from pea.cache.completion import read_record
from pea.cache.copying import copy_cache
from pea.cache.takedown import remove_samples
from pea.errors import CacheError, ShardDamagedError
from pea.storage import Location, clients, objects
from pea.storage.local_copies import LocalCopies
from tests.cache_helpers import CacheMaker, content, identity
from tests.object_server import ObjectServer
from tests.storage.proxy import FaultProxy

pytestmark = pytest.mark.slow

ROOMY = 10**9


@pytest.fixture(autouse=True)
def _own_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "work"))


@pytest.fixture
def proxy(object_server: ObjectServer, bucket: Location, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(object_server.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        yield between


@pytest.fixture
def remote(bucket: Location) -> CacheMaker:
    return CacheMaker(bucket / "run/cache/parallel")  # type: ignore[arg-type]


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> CacheMaker:
    """A cache under an URL that tensorstore has no driver for."""
    memory = MemoryStore()
    for module in (clients, objects):
        monkeypatch.setattr(module, "client", lambda _bucket, _prefix="": memory)
    return CacheMaker(Location.parse("az://box/run/cache/parallel"))  # type: ignore[arg-type]


def copies_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in (folder / "copies").rglob("*") if path.is_file()}


def store(cache: Cache) -> Location:
    record = cache.record_path(cache.part_plan("a", "p000"))
    return record.parent / read_record(record).store


def epoch(rows: Any, number: int) -> dict[str, Any]:
    (found,) = rows.values()
    read = found.read(number, 0, len(found))
    return {f"{row.sample_id}#{row.draw}/{name}": value.tobytes() for row in read for name, value in row.arrays.items()}


def test_the_second_epoch_asks_the_bucket_for_nothing(remote: CacheMaker, proxy: FaultProxy) -> None:
    wanted = identity(["a", "b"])
    remote.fill(wanted)
    rows = open_rows(Cache.open(remote.directory, copies=LocalCopies()), ["mid_block"], ["en"], 0, 1)
    (few,) = rows.values()
    few._capacity = 0  # what is in memory does not count
    first = epoch(rows, 0)
    proxy.requests.clear()
    assert epoch(rows, 1) == first and proxy.requests == []
    again = Cache.open(remote.directory, copies=LocalCopies())
    assert content(again) == content(remote.fill(wanted))
    proxy.requests.clear()
    assert epoch(open_rows(again, ["mid_block"], ["en"], 0, 1), 0) == first and proxy.requests == []
    content(Cache.open(remote.directory, copies=LocalCopies()))
    asked = {request.path.partition("?")[0].rpartition("/")[2] for request in proxy.requests if "?" not in request.path}
    assert asked == {"manifest.json", "p000.json"}, "another run asks for what may have changed"


def test_without_copies_every_epoch_asks(remote: CacheMaker, proxy: FaultProxy, tmp_path: Path) -> None:
    remote.fill(identity(["a"]))
    cache = Cache.open(remote.directory)
    first = content(cache)
    proxy.requests.clear()
    assert content(cache) == first and len(proxy.requests) > 10 and not copies_in(tmp_path / "work")


@pytest.mark.parametrize("most_bytes", [3000, 0, ROOMY])
def test_the_bound_holds_and_the_rows_are_the_same(remote: CacheMaker, most_bytes: int, tmp_path: Path) -> None:
    cache = remote.fill(identity(["a"]))
    read = content(Cache.open(remote.directory, copies=LocalCopies(most_bytes)))
    assert read == content(cache)
    total = sum(copies_in(tmp_path / "work").values())
    assert total <= most_bytes and (total > 0) == (most_bytes > 0)
    assert (total > 3000) == (most_bytes == ROOMY)


@pytest.mark.parametrize("way", ["flipped", "gone", "cut"])
def test_a_copy_that_cannot_be_read_is_fetched_again(remote: CacheMaker, way: str, tmp_path: Path) -> None:
    """Another process made room, or the disk altered it; also while the shard is open."""
    copies = LocalCopies()
    remote.fill(identity(["a"]))
    open_before = Cache.open(remote.directory, copies=copies)
    expected = content(open_before)
    before = copies_in(tmp_path / "work")
    for path in before:
        data = path.read_bytes()
        path.write_bytes({"cut": data[: len(data) // 2], "flipped": bytes([data[0] ^ 1]) + data[1:]}.get(way, b""))
        if way == "gone":
            path.unlink()
    assert content(open_before) == content(Cache.open(remote.directory, copies=LocalCopies())) == expected
    if way != "gone":
        assert copies_in(tmp_path / "work") == before


def test_damage_in_the_bucket_is_told(remote: CacheMaker) -> None:
    cache = remote.fill(identity(["a"]))
    place = store(cache) / "24x32/noise_pred/c/0/0/0/0"
    place.write_bytes(b"\0" + place.read_bytes()[1:])
    with pytest.raises(ShardDamagedError, match=r"noise_pred: .* other bytes than were written \(crc32c\)"):
        content(Cache.open(cache.directory, copies=LocalCopies()))
    place.delete()
    with pytest.raises(ShardDamagedError, match="No such file"):
        content(Cache.open(cache.directory, copies=LocalCopies()))


def test_copies_of_what_was_taken_down_go_with_the_next_reading(remote: CacheMaker, tmp_path: Path) -> None:
    cache = remote.fill(identity(["a"]))
    content(Cache.open(cache.directory, copies=LocalCopies()))
    sought = b"caption a-24x32-1"
    size = sum(copies_in(tmp_path / "work").values())
    assert size and remove_samples(cache, "a", ["a-24x32-1"])
    content(Cache.open(cache.directory, copies=LocalCopies()))
    (folder,) = (tmp_path / "work/copies").iterdir()
    assert [each.name for each in folder.iterdir()] == [store(cache).name]
    assert not [path for path in copies_in(tmp_path / "work") if sought in path.read_bytes()]


def test_where_tensorstore_has_no_driver_copies_are_read(
    azure: CacheMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = identity(["a", "b"])
    cache, here = azure.fill(wanted), CacheMaker(tmp_path / "here").fill(wanted)
    expected = content(here)
    assert content(cache) == expected and audit(cache.directory).problems == [] and copies_in(tmp_path / "work")
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "other"))
    assert content(Cache.open(cache.directory, copies=LocalCopies(100))) == expected, "and nothing else has room"
    grown = azure.fill(identity(["a", "b"], draws=4), extend=True)
    assert grown.draws_per_sample == 4 and audit(grown.directory).problems == []
    assert remove_samples(grown, "a", ["a-24x32-1"]) == ["a-24x32-1"]
    assert Cache.open(grown.directory).num_samples == 7
    copy_cache(grown.directory, Location.parse(tmp_path / "copy"))
    assert content(Cache.open(tmp_path / "copy")) == content(Cache.open(grown.directory))


@pytest.mark.parametrize("way", ["missing", "empty", "cut", "flipped", "zeros"])
def test_damage_is_told_there_as_well(azure: CacheMaker, way: str) -> None:
    cache = azure.fill(identity(["a"]))
    place = store(cache) / "24x32/noise_pred/c/0/0/0/0"
    data = place.read_bytes()
    flipped = data[:9] + bytes([data[9] ^ 1]) + data[10:]
    if way == "missing":
        place.delete()
    else:
        place.write_bytes({"empty": b"", "cut": data[:-3], "flipped": flipped, "zeros": bytes(len(data))}[way])
    with pytest.raises(ShardDamagedError):
        content(Cache.open(cache.directory))
    assert [each.where for each in audit(cache.directory).problems] == [str(place)]


def test_a_shard_that_was_replaced_is_told(azure: CacheMaker, tmp_path: Path) -> None:
    opened = azure.fill(identity(["a"]))
    bucket = next(iter(opened.shards)).buckets["24x32"]
    remove_samples(opened, "a", ["a-24x32-1"])
    with pytest.raises(CacheError, match="replaced while the cache was open"):
        bucket.read(["noise_pred"], 0, 1)
