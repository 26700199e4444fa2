"""Charts as SVG: every point inside the axes, round ticks, no more points than a page needs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from data_tools.charts import HEIGHT, MAX_POINTS, WIDTH, Series, decades, line_chart, round_steps, thinned


def test_every_point_is_inside_the_picture() -> None:
    series = [Series("total <1>", [(step, 10 / step) for step in range(1, 1000)]), Series("one", [(5, 1e-3)])]
    chart = str(line_chart(series, x_label="step", y_label="loss", title="a & b"))
    root = ET.fromstring(f"<div>{chart}</div>")
    assert len(root.findall(".//polyline")) == 2 and 'aria-label="a &amp; b"' in chart and "total &lt;1&gt;" in chart
    for line in root.findall(".//polyline"):
        for x, y in (map(float, point.split(",")) for point in line.attrib["points"].split()):
            assert 0 < x < WIDTH and 0 < y < HEIGHT
    assert len(set(re.findall(r'class="line line\d" stroke-dasharray="([^"]*)"', chart))) == 2, "apart without colour"


def test_a_flat_line_has_a_place() -> None:
    assert "nan" not in str(line_chart([Series("x", [(1, 2.0), (2, 2.0)])], x_label="x", y_label="y", title="t"))


def test_long_runs_are_thinned_and_keep_their_end() -> None:
    points = [(float(step), 1.0) for step in range(10_001)]
    assert len(thinned(points)) <= MAX_POINTS + 1 and thinned(points)[-1] == points[-1]
    assert thinned(points[:MAX_POINTS]) == points[:MAX_POINTS]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1275, [0, 500, 1000]), (1, 1, [1]), (0, 10, [0, 2, 4, 6, 8, 10])]
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert round_steps(low, high) == expected


def test_a_logarithmic_axis_has_ticks_in_every_range() -> None:
    assert decades(0.001, 10) == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    assert len(decades(0.2, 0.9)) >= 3 and len(decades(0.31, 0.33)) >= 1
