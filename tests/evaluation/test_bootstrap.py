"""Bootstrap intervals over groups, and variants compared prompt by prompt."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pea.errors import EvaluationError
from pea.evaluation.bootstrap import bootstrap, compare
from pea.evaluation.metrics import average


def _names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def test_the_interval_is_that_of_the_normal_approximation_for_many_prompts() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400).tolist()
    found, expected = bootstrap(values, _names(400)), average(values)
    assert found.accuracy == pytest.approx(expected.accuracy) and found.n == 400
    assert found.low == pytest.approx(expected.low, abs=0.03) and found.high == pytest.approx(expected.high, abs=0.03)
    assert bootstrap(values, _names(400)) == found, "seeded"


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        found = bootstrap(rng.exponential(1.0, 60).tolist(), _names(60))
        covered += found.low <= 1.0 <= found.high
    assert 0.88 <= covered / 100 <= 0.99


def test_concepts_count_and_not_prompts() -> None:
    """Ten prompts of each of four concepts, alike within a concept, tell no more than four prompts."""
    values = [float(concept) for concept in range(4) for _ in range(10)]
    groups = [f"dish {concept}" for concept in range(4) for _ in range(10)]
    by_concept, by_prompt = bootstrap(values, groups), bootstrap(values, _names(40))
    assert by_concept.n == 4 and by_prompt.n == 40 and by_concept.accuracy == by_prompt.accuracy == 1.5
    assert by_concept.high - by_concept.low > 2 * (by_prompt.high - by_prompt.low)
    assert average(values, groups).n == 4
    assert average(values, groups).high - 1.5 > 2 * (average(values).high - 1.5)


def test_one_group_knows_no_interval() -> None:
    found = bootstrap([1.0, 2.0], ["dish", "dish"])
    assert found.n == 1 and math.isinf(found.low) and found.as_dict()["high"] is None
    assert average([1.0, 2.0], ["dish", "dish"]).as_dict()["low"] is None
    with pytest.raises(EvaluationError, match="nothing to take the mean of"):
        bootstrap([], [])


def test_a_difference_is_that_of_the_same_prompts() -> None:
    """What all images share does not widen the interval of the difference."""
    rng = np.random.default_rng(2)
    hard = rng.normal(0.0, 10.0, 100)
    second = {name: float(value) for name, value in zip(_names(100), hard, strict=True)}
    first = {name: value + float(rng.normal(0.5, 0.1)) for name, value in second.items()}
    first["alone"], second["p0"] = 99.0, first["p0"]
    found = compare(first, second, {name: name for name in first})
    assert 0.4 < found.difference.low < 0.5 < found.difference.high < 0.6 and found.difference.n == 100
    assert (found.wins, found.ties, found.losses) == (99, 1, 0)
    turned = compare(second, first, {name: name for name in first})
    assert (turned.wins, turned.ties, turned.losses) == (0, 1, 99)
    assert turned.difference.accuracy == pytest.approx(-found.difference.accuracy)
    with pytest.raises(EvaluationError, match="nothing to compare"):
        compare({"a": 1.0}, {"b": 1.0}, {"a": "a"})
