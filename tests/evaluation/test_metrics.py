"""Scores: counted by hand, and honest intervals."""

from __future__ import annotations

import math

import pytest

from pea.errors import EvaluationError
from pea.evaluation.metrics import average, proportion, score, student_quantile


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
    assert many.high - many.low == pytest.approx(2 * 1.9842 * math.sqrt(0.01 * 100 / 99 / 100), rel=1e-3)
    assert few.high - few.low > 4 * (many.high - many.low)
    assert average([0.5]).low == -math.inf  # one value says nothing of its spread
    with pytest.raises(EvaluationError):
        average([])


def test_prompts_that_repeat_a_concept_are_one_draw() -> None:
    """Seven dishes in sixteen prompts each, of which two never come out, are seven draws and not 112."""
    dishes = [f"dish {number}" for number in range(7)]
    wanted = [{"concept": dish} for dish in dishes for _ in range(16)]
    read = {"concept": [dish if dish not in dishes[:2] else "" for dish in dishes for _ in range(16)]}
    by_concept = score(wanted, read)
    by_prompt = score([{"shape": each["concept"]} for each in wanted], {"shape": read["concept"]})
    assert by_concept.mean.accuracy == by_prompt.mean.accuracy == pytest.approx(5 / 7)
    assert by_concept.mean.n == 7 and by_prompt.mean.n == 112
    width = by_concept.mean.high - by_concept.mean.low
    assert width > 3 * (by_prompt.mean.high - by_prompt.mean.low)
    assert by_concept.concepts["dish 0"].accuracy == 0 and by_concept.concepts["dish 6"].accuracy == 1
    assert by_concept.concepts["dish 6"].n == 16 and by_prompt.concepts == {}
    assert "concepts" not in by_prompt.as_dict() and len(by_concept.as_dict()["concepts"]) == 7  # type: ignore[arg-type]


def test_all_right_is_not_certain() -> None:
    whole = score([{"concept": name} for name in "abcdefg"], {"concept": list("abcdefg")})
    assert whole.mean.high == 1 and whole.mean.low == proportion(7, 7).low < 0.7
    assert score([{"shape": "star"}], {"shape": ["star"]}).mean.low < 0.25


def test_what_each_prompt_got_is_kept() -> None:
    wanted = [{"shape": "star", "colour": "red"}, {"shape": "moon"}]
    assert score(wanted, {"shape": ["star", "star"], "colour": ["blue", "blue"]}).prompts == [0.5, 0.0]


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (4, 2.7764), (5, 2.5706), (6, 2.4469), (10, 2.2281), (30, 2.0423), (1000, 1.9623)],
)
def test_students_quantile(degrees: int, quantile: float) -> None:
    """Against a table of the t distribution."""
    assert student_quantile(degrees) == pytest.approx(quantile, rel=2e-4)
