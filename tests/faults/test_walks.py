"""Walks over what the product writes: a sample in the slow suite, every operation by hand.

The whole walks take minutes to hours: ``pytest -m by_hand tests/faults``, or one at a time and with other seeds by
``python -m tests.faults``.
"""

from __future__ import annotations

import random
from typing import get_args

import pytest

from tests.faults.__main__ import SCENARIOS
from tests.faults.control import Fault, Kind
from tests.faults.interposer import reason_to_skip
from tests.faults.report import Report
from tests.faults.walk import forked_walk

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

KINDS: tuple[Kind, ...] = get_args(Kind)
SECONDS, SAMPLE, FEWEST = 12.0, 120, 3
"""Of a walk: its length, its steps at most, and the fewest that have to be made in it."""
SAMPLED = [name for name in SCENARIOS if name != "TRAINING"]
"""A step of the other takes many seconds: it is walked by hand."""


def assert_held(report: Report) -> None:
    """Nothing was found, and nothing lies about but what is allowed."""
    assert report.findings == [], str(report)
    assert report.forbidden_litter == [], str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLED)
def test_a_sample_of_all_faults(name: str) -> None:
    """As many as there is time for, in an order by the seed, of all kinds and at all operations."""
    with forked_walk(SCENARIOS[name]) as walk:
        report = walk.run(walk.faults(*KINDS, sample=SAMPLE, seed=7), seconds=SECONDS)
    assert report.num_steps >= (FEWEST if name != "EVAL" else 1) and report.num_unreached <= report.num_steps // 4, str(
        report
    )
    assert_held(report)


@pytest.mark.slow
def test_a_killed_takedown_leaves_nothing_of_what_was_removed() -> None:
    """Once the same command has said that it is done."""
    with forked_walk(SCENARIOS["REMOVE"]) as walk:
        numbers = list(range(1, len(walk.operations) + 1, 4))
        random.Random(7).shuffle(numbers)
        report = walk.run([Fault("kill", number) for number in numbers], seconds=2 * SECONDS)
    assert_held(report)


@pytest.mark.slow
def test_what_a_training_leaves_when_it_ended_well_or_may_remove_nothing() -> None:
    """A power cut afterwards brings nothing back, and a lasting refusal while the adapter is published is one line."""
    with forked_walk(SCENARIOS["OUTPUT"]) as walk:
        published = [
            number for number, each in enumerate(walk.operations, 1) if "open run/adapter/.publish-" in str(each)
        ]
        faults = [Fault("power", len(walk.operations) + 1), Fault("fail", published[0], "EACCES", lasting=True)]
        report = walk.run(faults, seconds=10 * SECONDS)
    assert report.num_steps == len(faults)
    assert_held(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FILL", "EXTEND", "REPAIR", "REMOVE", "COPY"])
def test_a_sample_of_all_faults_of_requests(name: str) -> None:
    """The same in a bucket; what passes is outlasted."""
    pytest.importorskip("moto", reason="takes an S3 server on the loopback (moto)")
    pytest.importorskip("pea.cache.publication", reason="takes a cache that can lie in a bucket")
    from tests.faults.request_walk import KINDS, request_walk

    with request_walk(SCENARIOS[name]) as walk:  # of a copy, a step takes as long as twenty of the others
        report = walk.run(walk.faults(*KINDS, sample=SAMPLE, seed=7), seconds=SECONDS)
    assert report.num_steps > 0
    assert_held(report)


@pytest.mark.by_hand
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_whole_walk(name: str, kind: Kind) -> None:
    with forked_walk(SCENARIOS[name]) as walk:
        report = walk.run(walk.faults(kind))
    assert_held(report)
