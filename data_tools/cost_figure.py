"""The figure of scores against processor seconds as one SVG file: a panel for each score, a mark for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from data_tools.score_figure import STYLE, axis_of
from data_tools.tables import score_cell

_WIDTH, _HEIGHT, _LEFT, _LABELS, _TOP, _BOTTOM = 340, 360, 40, 120, 30, 40
_GAP = 13
_TICKS = (1, 2, 5)


def cost_figure(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SVG of a sweep's rows: each has a `method`, `cpu_seconds` and `scores`, name -> `mean` and `spread` or None.

    The axis of scores goes from 0 to 1, or as far as the scores do.
    """
    names = list(rows[0]["scores"])
    low, high = axis_of(rows)
    most = max(row["cpu_seconds"] for row in rows) or 1.0
    panels = [
        f'<g transform="translate({number * _WIDTH} 0)">{_panel(rows, name, number, most, low, high)}</g>'
        for number, name in enumerate(names)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH * len(names)} {_HEIGHT}" role="img"'
    return f'{head} aria-label="scores against processor seconds">\n{STYLE}\n' + "\n".join(panels) + "\n</svg>\n"


def _panel(rows: Sequence[Mapping[str, Any]], name: str, number: int, most: float, low: float, high: float) -> str:
    right, bottom = _WIDTH - _LABELS, _HEIGHT - _BOTTOM

    def x_of(seconds: float) -> float:
        return _LEFT + (right - _LEFT) * seconds / most

    def y_of(score: float) -> float:
        return bottom - (bottom - _TOP) * (score - low) / (high - low)

    parts = [f'<text x="{_LEFT}" y="18">{escape(name)}</text>']
    for step in range(6):
        value = low + (high - low) * step / 5
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y_of(value):.1f}" y2="{y_of(value):.1f}"/>')
        parts.append(
            f'<text class="soft" x="{_LEFT - 6}" y="{y_of(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>'
        )
    for seconds in _ticks(most):
        at = x_of(seconds)
        parts.append(f'<text class="soft" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{seconds:g}</text>')
    parts.append(f'<text class="soft" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">CPU s</text>')
    heights = _apart([y_of(row["scores"][name]["mean"]) for row in rows], bottom)
    for row, label_y in zip(rows, heights, strict=True):
        mean, spread = row["scores"][name]["mean"], row["scores"][name]["spread"]
        x, y, colour = x_of(row["cpu_seconds"]), y_of(mean), f"s{number % 4}"
        title = f"{row['method']}, {name}: {score_cell(row, name)} in {row['cpu_seconds']:.0f} s"
        line = (
            ""
            if spread is None
            else (
                f'<line class="spread {colour}" x1="{x:.1f}" x2="{x:.1f}" '
                f'y1="{y_of(mean - spread):.1f}" y2="{y_of(mean + spread):.1f}"/>'
            )
        )
        parts.append(
            f"<g><title>{escape(title)}</title>{line}"
            f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<line class="grid" x1="{x + 5:.1f}" x2="{right + 6}" y1="{y:.1f}" y2="{label_y:.1f}"/>'
            f'<text class="soft" x="{right + 8}" y="{label_y + 4:.1f}">{escape(row["method"])}</text></g>'
        )
    return "".join(parts)


def _ticks(most: float) -> list[float]:
    """Round numbers of seconds from 0 on, four or five of them."""
    sizes = (factor * 10.0**power for power in range(-2, 9) for factor in _TICKS)
    size = next(size for size in sizes if most / size <= 5)
    return [size * number for number in range(int(most / size) + 1)]


def _apart(wanted: Sequence[float], lowest: float) -> list[float]:
    """Heights of the labels: as wanted, but a line's height apart, and none below `lowest` where there is room."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed, above = list(wanted), -1e9
    for index in order:
        placed[index] = above = max(wanted[index], above + _GAP)
    below = lowest + _GAP
    for index in reversed(order):
        placed[index] = below = min(placed[index], below - _GAP)
    return placed
