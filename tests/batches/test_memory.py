"""What a reader keeps in memory of a cache does not grow with it, and what is let go comes back unchanged."""

from __future__ import annotations

import weakref
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from pea.batches.captions import Captions
from pea.batches.opening import open_rows
from pea.batches.rows import Row
from pea.batches.selection import Selection
from pea.cache import Cache, shard
from pea.cache.shard import OpenShard, Shard
from tests.cache_helpers import CacheMaker, identity

TARS = [f"tar{number}" for number in range(6)]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Six shards of two buckets."""
    return CacheMaker(tmp_path / "cache", buckets=("24x32", "32x24")).fill(identity(TARS))


def keep_open(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let only so many shards stay open."""
    monkeypatch.setattr(shard, "_opened", lru_cache(maxsize=count)(Shard.open))


def rows_of(cache: Cache, selection: Selection | None = None) -> list[Row]:
    """Two epochs of one bucket's rows, with one shard in memory at a time."""
    rows = open_rows(cache, ("mid_block",), ("en",), 0, 1, selection=selection)["24x32"]
    rows._capacity = 1
    return [row for epoch in (0, 1) for start in range(len(rows)) for row in rows.read(epoch, start, start + 1)]


def equal(one: list[Row], other: list[Row]) -> bool:
    """Whether two lists of rows are the same."""
    return len(one) == len(other) and all(
        a[1:] == b[1:] and all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.slow
def test_few_shards_are_open_at_a_time_and_all_can_be_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded = rows_of(cache)
    keep_open(monkeypatch, 2)
    opened: list[weakref.ref[OpenShard]] = []
    for each in Cache.open(cache.directory).shards:
        opened.append(weakref.ref(shard._opened(each)))
        assert each.buckets["24x32"] is each.buckets["24x32"]
    assert [found() is None for found in opened] == [True] * 4 + [False] * 2
    assert equal(rows_of(Cache.open(cache.directory)), unbounded)


def test_a_bucket_that_is_held_stays_open(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_open(monkeypatch, 1)
    first = cache.shards[0].buckets["24x32"]
    expected = first.read(["timestep"], 0, first.num_records)["timestep"]
    assert cache.shards[1].buckets  # the first shard is let go
    assert np.array_equal(first.read(["timestep"], 0, first.num_records)["timestep"], expected)
    assert cache.shards[0].buckets["24x32"] is not first


@pytest.mark.slow
@pytest.mark.parametrize("selection", [Selection(0.4), Selection(0.4, held_out=True), Selection(timesteps=(500, 1000))])
def test_pieces_find_their_kept_rows_again(cache: Cache, selection: Selection) -> None:
    everything = {(row.sample_id, row.draw): row for row in rows_of(cache)}
    chosen = {(row.sample_id, row.draw): row for row in rows_of(cache, selection)}
    assert 0 < len(chosen) < len(everything)
    for name, row in chosen.items():
        assert equal([row], [everything[name]])
    rest = {name for name, row in everything.items() if name not in chosen}
    if selection.timesteps:
        assert all(everything[name].arrays["timestep"] < 500 for name in rest)
        assert all(row.arrays["timestep"] >= 500 for row in chosen.values())
    else:
        assert {name for name, _ in rest}.isdisjoint(name for name, _ in chosen)


def test_captions_come_shard_by_shard_as_often_as_they_are_asked_for(cache: Cache) -> None:
    captions = Captions([cache, cache], ["en", "en", "xx"])
    expected = [text for each in cache.shards for bucket in each.buckets.values() for text in bucket.captions("en")]
    assert list(captions) == list(captions) == 2 * expected
    assert len(expected) == 6 * 2 * 4 and all(expected)
