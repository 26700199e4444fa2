"""A cache that grows: by new files only, and into what would have been made at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pea.cache import Cache
from pea.errors import IdentityError
from tests.cache_helpers import CacheMaker, content, identity

SMALL = {"tars": ("a",), "draws": 2, "blocks": ("mid_block",), "cache.attention": None}
QUERIES = {"cache.attention": {"num_queries": 3}}
LARGE = {"tars": ("a", "b"), "draws": 5, "blocks": ("down_blocks.0", "mid_block"), **QUERIES}


@pytest.mark.parametrize(
    "steps",
    [
        [{"tars": ("a", "b")}],
        pytest.param([{"draws": 5}], marks=pytest.mark.slow),
        pytest.param([{"blocks": ("down_blocks.0", "mid_block")}], marks=pytest.mark.slow),
        [QUERIES],
        pytest.param([LARGE], marks=pytest.mark.slow),
        pytest.param(
            [{"draws": 3}, QUERIES, {"blocks": ("down_blocks.0", "mid_block")}, {"draws": 4}, {"tars": ("a", "b")}],
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize("rejecting", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_extended_cache_equals_one_made_at_once(
    make_cache: CacheMaker, steps: list[dict[str, Any]], rejecting: bool
) -> None:
    make_cache.buckets = ("24x32", "32x24")
    wanted = dict(SMALL)
    first = make_cache.fill(identity(**wanted))  # type: ignore[arg-type]
    before = {path: path.read_bytes() for path in Path(first.directory).rglob("*") if path.is_file()}
    if rejecting:
        make_cache.rejected = {("a", "p001"): {"a-24x32-0", "a-32x24-2"}, ("a", "p002"): {"a-24x32-3"}}
        make_cache.rejected |= {("a", "p003"): {"a-32x24-1"}}
    for step in steps:
        wanted |= step
        with pytest.raises(IdentityError, match="--extend"):
            make_cache.fill(identity(**wanted))  # type: ignore[arg-type]
        extended = make_cache.fill(identity(**wanted), extend=True)  # type: ignore[arg-type]
    at_once = CacheMaker(make_cache.directory.with_name("at_once"), make_cache.buckets)
    lost = set[str]().union(*(keys for (tar, part), keys in make_cache.rejected.items() if _has(extended, tar, part)))
    at_once.rejected = {("a", "p000"): lost}
    expected = at_once.fill(identity(**wanted))  # type: ignore[arg-type]
    assert content(extended) == content(expected)
    assert extended.num_records == expected.num_records
    bucket, whole = extended.shards[0].buckets["24x32"], expected.shards[0].buckets["24x32"]
    for start, stop in ((0, 1), (1, 2), (3, bucket.num_records), (2, 2)):
        assert np.array_equal(
            bucket.read(["timestep"], start, stop)["timestep"],
            whole.read(["timestep"], start, stop)["timestep"],
        )
    assert {path: path.read_bytes() for path in before} == before


def _has(cache: Cache, tar: str, part: str) -> bool:
    return any((plan.tar, plan.part) == (tar, part) for plan in cache.manifest.parts)


@pytest.mark.parametrize(
    "wanted",
    [
        {**SMALL, "draws": 1},
        {**SMALL, "blocks": ("up_blocks.0",)},
        {**SMALL, "cache.seed": 1},
        {**SMALL, "tars": ("a", "b"), "teacher.unet": "1" * 64},
        {**SMALL, "cache.sketches": {"mid_block": {"kind": "other"}}},
        {**SMALL, **QUERIES, "cache.noise_pred_sketch": {"kind": "count"}},
    ],
)
def test_extending_never_changes_what_is_there(make_cache: CacheMaker, wanted: dict[str, Any]) -> None:
    make_cache.fill(identity(**SMALL))  # type: ignore[arg-type]
    with pytest.raises(IdentityError, match="--extend only adds"):
        Cache.create_or_resume(make_cache.directory, identity(**wanted), extend=True)


def test_a_tar_that_is_gone_is_no_extension(make_cache: CacheMaker) -> None:
    make_cache.fill(identity(**SMALL))  # type: ignore[arg-type]
    with pytest.raises(IdentityError, match="take a tar that is gone out with `pea cache --retire a`"):
        Cache.create_or_resume(make_cache.directory, identity(**{**SMALL, "tars": ("b",)}), extend=True)


def test_extending_by_nothing_changes_nothing(make_cache: CacheMaker) -> None:
    make_cache.fill()
    assert Cache.create_or_resume(make_cache.directory, identity(), extend=True).plan() == []
    assert [path.name for path in make_cache.directory.glob("*.json")] == ["manifest.json"]


def test_growing_at_the_same_time_loses_nothing(make_cache: CacheMaker) -> None:
    """Each adds a tar to what the others made: none of the manifests in between is overwritten."""
    make_cache.fill(identity(["a"]))

    def grow(tar: str) -> None:
        while True:  # as a driver that lists what is there: another one may have grown the cache since
            known = Cache.open(make_cache.directory, partial=True).identity.tars
            try:
                Cache.create_or_resume(make_cache.directory, identity(sorted({*known, tar})), extend=True)
                return
            except IdentityError:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(grow, "bcdefgh"))
    found = Cache.open(make_cache.directory, partial=True)
    assert list(found.identity.tars) == list("abcdefgh")
    assert sorted(path.name for path in make_cache.directory.glob("manifest*")) == sorted(
        ["manifest.json", *(f"manifest.{number}.json" for number in range(1, 8))]
    )
