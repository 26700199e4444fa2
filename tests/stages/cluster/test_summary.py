"""When a caching run has failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.config import CacheConfig
from pea.errors import CacheError
from stages.cluster.summary import check, describe

CONFIG = CacheConfig(max_dropped_fraction=0.01)


def test_samples_that_were_taken_down_are_not_lost() -> None:
    check(Path("cache"), {"failed": {}, "samples": 50, "dropped": {"removed": 50}}, CONFIG)
    with pytest.raises(CacheError, match=r"too many samples were dropped.*got 3\.85%: undecodable 2\. "):
        check(Path("cache"), {"failed": {}, "samples": 50, "dropped": {"removed": 50, "undecodable": 2}}, CONFIG)


def test_the_share_that_is_proposed_is_enough() -> None:
    summary = {"failed": {}, "samples": 50, "dropped": {"undecodable": 2}}
    with pytest.raises(CacheError, match=r"the same command with cache\.max_dropped_fraction=0\.039\.$"):
        check(Path("cache"), summary, CONFIG)
    check(Path("cache"), summary, CacheConfig(max_dropped_fraction=0.039))


def test_a_lost_tar_is_a_failure() -> None:
    with pytest.raises(CacheError, match=r"1 tar failed.*a: torn"):
        check(Path("cache"), {"failed": {"a": "torn"}, "samples": 50, "dropped": {}}, CONFIG)


def test_images_without_a_description_are_not_lost() -> None:
    check(Path("cache"), {"failed": {}, "samples": 1, "dropped": {"description_missing": 50}}, CONFIG)


def test_the_time_of_a_run_is_its_own_and_earlier_ones_are_said() -> None:
    summary = {"samples": 2, "records": 8, "bytes": 1e6, "dropped": {}, "seconds": 90.0}
    assert describe(summary, 90.0) == "2 samples, 8 records, 1.0 MB in 1 min 30 s"
    assert describe(summary, 30.0) == "2 samples, 8 records, 1.0 MB in 30 s (1 min 30 s with earlier runs)"
