"""The figure of scores against seconds."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from data_tools.cost_figure import cost_figure
from data_tools.score_figure import figures_in

NUMBER = r"(-?[\d.]+)"


def row(method: str, seconds: float, general: float, spread: float | None = None) -> dict[str, Any]:
    scores = {"general": {"mean": general, "spread": spread}, "culture": {"mean": 0.5, "spread": None}}
    return {"method": method, "cpu_seconds": seconds, "scores": scores}


def test_a_mark_stands_where_its_seconds_and_its_score_are() -> None:
    svg = cost_figure([row("a<b", 100.0, 1.0, 0.25), row("half", 50.0, 0.5), row("none", 0.0, 0.0)])
    ElementTree.fromstring(svg)
    assert "<title>a&lt;b, general: 1.000 ± 0.250 in 100 s</title>" in svg
    assert figures_in(svg)["a<b", "general"] == (1.0, 0.25) and len(figures_in(svg)) == 6
    assert "<title>half, general: 0.500 in 50 s</title>" in svg and svg.count('class="spread') == 1, "of one seed"
    marks = [(float(x), float(y)) for x, y in re.findall(rf'<circle class="s0" cx="{NUMBER}" cy="{NUMBER}"', svg)]
    (x_most, y_best), (x_half, y_half), (x_none, y_none) = marks
    assert x_half == (x_most + x_none) / 2 and y_best < y_half < y_none
    assert svg.count('class="s1"') == 3, "a panel for each score"
    assert re.findall(r'text-anchor="middle">(\d+)</text>', svg)[:6] == ["0", "20", "40", "60", "80", "100"]


def test_labels_of_equal_scores_do_not_lie_on_each_other() -> None:
    svg = cost_figure([row(f"m{number}", 90.0, 0.02) for number in range(9)])
    found = re.findall(rf'<text class="soft" x="{NUMBER}" y="{NUMBER}">m\d</text>', svg)
    heights = sorted(float(y) for x, y in found[:9])
    assert all(b - a >= 12.9 for a, b in zip(heights, heights[1:], strict=False)) and heights[-1] <= 330
