"""The page of a sweep says no more than its seeds and methods allow."""

from __future__ import annotations

from typing import Any

from data_tools.report.sweep_page import sweep_page
from data_tools.score_figure import score_figure
from tests.data_tools.report.runs import said_by


def _row(method: str, seeds: int, mean: float, spread: float | None = None) -> dict[str, Any]:
    costs = {"seconds": 12.0, "tflop": 3.2, "trained_parameters": 12}
    return {"method": method, "seeds": seeds, "scores": {"general": {"mean": mean, "spread": spread}}, **costs}


def test_one_method_with_one_seed() -> None:
    said = said_by(sweep_page("Sweep", [_row("mine", 1, 0.5)]))
    assert "mine: 0.500 in general." in said and "Best in" not in said
    assert "One seed each, which says nothing of the spread." in said and "standard deviation" not in said
    assert "1 mine 0.500 1 12 s" in said


def test_seeds_that_differ_in_number() -> None:
    said = said_by(sweep_page("Sweep", [_row("many", 3, 0.6, 0.02), _row("one", 1, 0.5)]))
    assert "2 methods. Best in general: many, 0.600." in said and "Of one seed, nothing is known of the spread." in said
    assert "1 many 0.600 ± 0.020 3" in said and "2 one 0.500 1" in said


def test_a_long_name_is_cut_at_its_end() -> None:
    figure = score_figure([_row("distillation-with-a-long-name", 1, 0.5)])
    assert (
        ">distillation-with-a-lon…</text>" in figure
        and "<title>distillation-with-a-long-name, general: 0.500</title>" in figure
    )
    assert 'class="spread' not in figure, "of one seed"
