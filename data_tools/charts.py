"""Charts as inline SVG: they follow the page's colours, light and dark, and need no file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 960, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 40
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 4")
"""Lines differ in dashes too: colours alone are lost in print and to some eyes."""
MAX_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    """`(x, y)`, both finite, y above zero."""


def line_chart(series: Sequence[Series], *, x_label: str, y_label: str, title: str) -> Markup:
    """Lines over a common x axis, y on a logarithmic scale; the legend stands below the axes.

    Args:
        series: at least one, none without points.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.
        title: read out in place of the picture.
    """
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points]
    x_scale = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    y_scale = _Scale(math.log10(min(ys)), math.log10(max(ys)), HEIGHT - _BOTTOM, _TOP)
    lines = [_line(number, each, x_scale, y_scale) for number, each in enumerate(series)]
    legend = "".join(_legend(number, each.name) for number, each in enumerate(series))
    axes = [*_x_axis(x_scale, x_label), *_y_axis(y_scale, y_label)]
    picture = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(f'{picture}{"".join(axes)}{"".join(lines)}</svg><div class="legend">{legend}</div>')  # noqa: S704


@dataclass(frozen=True)
class _Scale:
    """A linear map of values onto the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return (
            (self.start + self.end) / 2
            if span == 0
            else self.start + (self.end - self.start) * (value - self.low) / span
        )


def _legend(number: int, name: str) -> str:
    dashes = _DASHES[number % len(_DASHES)]
    line = f'<line x1="0" x2="28" y1="5" y2="5" class="line line{number}" stroke-dasharray="{dashes}"/>'
    return f'<span><svg width="28" height="10" aria-hidden="true">{line}</svg>{escape(name)}</span>'


def _line(number: int, series: Series, x_scale: _Scale, y_scale: _Scale) -> str:
    points = thinned(series.points)
    path = " ".join(f"{x_scale(x):.1f},{y_scale(math.log10(y)):.1f}" for x, y in points)
    dashes = _DASHES[number % len(_DASHES)]
    return f'<polyline class="line line{number}" stroke-dasharray="{dashes}" points="{path}"/>'


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `MAX_POINTS` of the points, evenly; the last one is kept."""
    step = -(-len(points) // MAX_POINTS)
    return points if step <= 1 else [*points[::step], points[-1]]


def _x_axis(scale: _Scale, label: str) -> list[str]:
    y = HEIGHT - _BOTTOM + 16
    parts = [
        f'<text class="tick" x="{scale(value):.1f}" y="{y}" text-anchor="middle">{value:,.0f}</text>'
        for value in round_steps(scale.low, scale.high)
    ]
    middle = (scale.start + scale.end) / 2
    return [*parts, f'<text class="label" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>']


def _y_axis(scale: _Scale, label: str) -> list[str]:
    parts = []
    for value in decades(10**scale.low, 10**scale.high):
        y = scale(math.log10(value))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (scale.start + scale.end) / 2
    turned = f'transform="rotate(-90 14 {middle})"'
    return [*parts, f'<text class="label" x="14" y="{middle}" text-anchor="middle" {turned}>{escape(label)}</text>']


def round_steps(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values from `low` to `high`, both included in the range."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Round values of a logarithmic axis: powers of ten, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(inside) >= 3:
            return inside
    return inside or [low]
