"""The figure of a sweep as one SVG file: a mark for each score's mean over the seeds, a line for its spread.

Each mark carries its numbers as a title, so that a figure can be compared with the table that it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape, unescape
from typing import Any

from data_tools.tables import score_cell

_ROW, _LEFT, _WIDTH, _RIGHT = 26, 190, 520, 24
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1d2330; } .soft { fill: #596377; font-size: 12px; }
.grid { stroke: #dfe3ea; } .spread { stroke-width: 3; opacity: 0.45; }
.s0 { fill: #0072b2; stroke: #0072b2; } .s1 { fill: #c24e00; stroke: #c24e00; }
.s2 { fill: #007a5a; stroke: #007a5a; } .s3 { fill: #7a7a7a; stroke: #7a7a7a; }
@media (prefers-color-scheme: dark) { text { fill: #e8eaf0; } .soft { fill: #a3acbd; } .grid { stroke: #333a47; }
.s0 { fill: #56b4e9; stroke: #56b4e9; } .s1 { fill: #f0914d; stroke: #f0914d; } .s2 { fill: #2fc79a; stroke: #2fc79a; }
.s3 { fill: #a6a6a6; stroke: #a6a6a6; } }
</style>"""
"""Of all figures of a sweep."""
_NAME = 24
"""Most letters of a method's name."""
_TITLE = re.compile(r"<title>([^<]*), ([^<,]*): (-?[\d.]+)(?: ± ([\d.]+))?(?: in \d+ s)?</title>")


def score_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SVG of a sweep's rows: each has a `method` and `scores`, name -> `mean` and `spread` or None.

    The axis goes from 0 to 1, or as far as the scores do.
    """
    names = list(rows[0]["scores"])
    low, high = axis_of(rows)

    def place(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low)

    height = _ROW * len(rows) + 64
    parts = [_grid(place, low, high, height)]
    for number, row in enumerate(rows):
        y = 40 + number * _ROW
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(_short(row["method"]))}</text>')
        parts += [_mark(index, name, row, place, y) for index, name in enumerate(names)]
    legend = "".join(
        f'{_shape(index, _LEFT + 150 * index, 14)}<text x="{_LEFT + 150 * index + 12}" y="18">{escape(name)}</text>'
        for index, name in enumerate(names)
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
    head += ' aria-label="scores by method">'
    return f"{head}\n{STYLE}\n{legend}\n" + "\n".join(parts) + "\n</svg>\n"


def axis_of(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Where the axis of scores begins and ends: from 0 to 1, or as far as means and spreads go."""
    scores = [score for row in rows for score in row["scores"].values()]
    ends = [score["mean"] + sign * (score["spread"] or 0.0) for score in scores for sign in (-1, 1)]
    return min(0.0, *ends), max(1.0, *ends)


def figures_in(svg: str) -> dict[tuple[str, str], tuple[float, float | None]]:
    """What a figure of a sweep shows, alone or against seconds: (method, score) -> mean, and spread or None."""
    return {
        (unescape(method), unescape(name)): (float(mean), float(spread) if spread else None)
        for method, name, mean, spread in _TITLE.findall(svg)
    }


def _short(name: str) -> str:
    """As much of a name as stands beside the axis; the table has it whole."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _grid(place: Any, low: float, high: float, height: int) -> str:
    values = [low + (high - low) * step / 5 for step in range(6)]
    return "".join(
        f'<line class="grid" x1="{place(value):.1f}" x2="{place(value):.1f}" y1="28" y2="{height - 24}"/>'
        f'<text class="soft" x="{place(value):.1f}" y="{height - 8}" text-anchor="middle">{value:.1f}</text>'
        for value in values
    )


def _mark(index: int, name: str, row: Mapping[str, Any], place: Any, y: float) -> str:
    mean, spread = row["scores"][name]["mean"], row["scores"][name]["spread"]
    line = (
        ""
        if spread is None
        else (
            f'<line class="spread s{index % 4}" x1="{place(mean - spread):.1f}" x2="{place(mean + spread):.1f}" '
            f'y1="{y}" y2="{y}"/>'
        )
    )
    title = f"<title>{escape(row['method'])}, {escape(name)}: {score_cell(row, name)}</title>"
    return f"<g>{title}{line}{_shape(index, place(mean), y)}</g>"


def _shape(index: int, x: float, y: float) -> str:
    """Scores differ in shape as well as in colour."""
    kind = f'class="s{index % 4}"'
    if index % 2:
        return f'<rect {kind} x="{x - 4:.1f}" y="{y - 4}" width="8" height="8" transform="rotate(45 {x:.1f} {y})"/>'
    return f'<circle {kind} cx="{x:.1f}" cy="{y}" r="5"/>'
