"""Scores: counted by hand, and honest intervals."""

from __future__ import annotations

import math

import pytest

from pea.errors import EvaluationError
from pea.evaluation.metrics import average, proportion, score


def test_mean_over_attributes() -> None:
    wanted = [{"shape": "star", "colour": "red"}, {"shape": "moon", "colour": "blue"}, {"shape": "ball"}]
    read = {"shape": ["star", "star", "ball"], "colour": ["red", "red", "white"], "size": ["big"] * 3}
    result = score(wanted, read)
    assert result.attributes["shape"].accuracy == pytest.approx(2 / 3) and result.attributes["shape"].n == 3
    assert result.attributes["colour"].accuracy == 0.5 and result.attributes["colour"].n == 2
    assert result.mean.accuracy == pytest.approx((2 / 3 + 0.5) / 2) and result.mean.n == 3
    assert result.mean.low < result.mean.accuracy < result.mean.high
    assert "size" not in result.attributes
    assert result.as_dict()["attributes"]["colour"]["n"] == 2  # type: ignore[index]


def test_wilson_interval() -> None:
    half = proportion(50, 100)
    assert (half.low, half.high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert proportion(0, 10).low == 0.0 and proportion(10, 10).high == 1.0
    assert proportion(10, 10).low < 0.75 and math.isnan(proportion(0, 0).accuracy)


def test_what_the_judge_does_not_read_is_refused() -> None:
    with pytest.raises(EvaluationError, match="cannot score"):
        score([{"mood": "gay"}], {"shape": ["star"]})
    with pytest.raises(EvaluationError):
        score([], {"shape": []})


def test_the_interval_of_a_mean_narrows_with_the_number_of_values() -> None:
    few, many = average([0.2, 0.4]), average([0.2, 0.4] * 50)
    assert few.accuracy == pytest.approx(0.3) and many.accuracy == pytest.approx(0.3)
    assert many.high - many.low == pytest.approx(2 * 1.96 * math.sqrt(0.01 * 100 / 99 / 100), rel=1e-3)
    assert few.high - few.low > 4 * (many.high - many.low)
    assert average([0.5]).low == -math.inf  # one value says nothing of its spread
    with pytest.raises(EvaluationError):
        average([])
