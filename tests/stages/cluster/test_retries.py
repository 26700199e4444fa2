"""What becomes of a tar whose worker fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.cache import PartPlan
from pea.storage import Location
from stages.cluster.retries import MAX_LOST, MAX_QUARANTINED, Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    part = PartPlan("a", "p000", "whole", 0, 2, ("mid_block",))
    return Job(part, Location.parse(tmp_path / "a.tar"), max_tries=3)


def _die_at(job: Job, key: str) -> bool:
    job.start()
    job.key_in_flight = key
    return job.died()


def test_first_death_only_makes_careful(job: Job) -> None:
    assert _die_at(job, "innocent, read ahead")
    assert job.task().careful
    assert job.task().skip == ()


def test_a_sample_that_kills_every_try_is_quarantined_and_the_tries_start_again(job: Job) -> None:
    assert _die_at(job, "0001")
    assert _die_at(job, "0007")
    assert _die_at(job, "0007")
    assert job.task().skip == ("0007",)
    assert (job.tries, job.careful) == (0, True)


def test_deaths_at_different_samples_give_the_tar_up(job: Job) -> None:
    assert _die_at(job, "0001")
    assert _die_at(job, "0002")
    assert not _die_at(job, "0003")
    assert job.error == "the worker process died at sample 0003"
    assert job.task().skip == ()


def test_a_lost_node_blames_no_sample_and_is_no_try(job: Job) -> None:
    for _ in range(MAX_LOST):
        job.start()
        job.key_in_flight = "0001"
        assert job.lost()
    assert not job.task().careful
    assert (job.tries, job.task().skip) == (0, ())
    assert not job.lost(), "a tar that always takes its node along ends some time"


def test_two_killers_in_one_tar(job: Job) -> None:
    for key in ("a", "a", "a", "b", "b"):
        assert _die_at(job, key)
    assert job.task().skip == ("a", "b")


def test_quarantine_is_bounded(job: Job) -> None:
    deaths, again = 0, _die_at(job, "")
    while again:
        again = _die_at(job, f"{deaths // 2}")
        deaths += 1
    assert len(job.quarantined) == MAX_QUARANTINED
    assert deaths <= 3 * (MAX_QUARANTINED + 1)


def test_a_new_try_forgets_the_key_of_the_last(job: Job) -> None:
    _die_at(job, "0001")
    job.start()
    assert job.died()
    assert job.error == "the worker process died"


def test_failures_are_bounded_and_a_final_one_is_not_tried_again(job: Job) -> None:
    assert job.failed("flaky storage")
    assert job.failed("flaky storage")
    assert not job.failed("flaky storage")
    assert not Job(job.part, job.tar, max_tries=3).failed("the tar is truncated", final=True)


def test_success_clears_the_error(job: Job) -> None:
    job.start()
    job.failed("flaky storage")
    job.start()
    job.finish()
    assert job.error == ""
