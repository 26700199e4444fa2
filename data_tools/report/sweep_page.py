"""The page of a sweep: its figure, general against culture where both were scored, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from data_tools.pages import render_page
from data_tools.score_figure import score_figure
from data_tools.tables import human_seconds, score_cell
from pea.plurals import count_of

_SIZE, _EDGE = 420, 48


def sweep_page(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of a sweep's rows, best first, as `stages.sweep_table.summarize` makes them; all were scored."""
    names = list(rows[0]["scores"])
    best = rows[0]
    best_score = best["scores"][names[0]]["mean"]
    lead = f"{count_of(len(rows), 'method')}. Best in {names[0]}: {best['method']}, {best_score:.3f}."
    lead = lead if len(rows) > 1 else f"{best['method']}: {best_score:.3f} in {names[0]}."
    pair = names[:2] if len(names) > 1 else []
    return render_page(
        "report/page_sweep.html",
        title=title,
        lead=lead,
        cards=[],
        figure=Markup(score_figure(rows)),  # noqa: S704 - every text in it is escaped there
        scatter=Markup(scatter(rows, *pair)) if pair else "",  # noqa: S704
        pair=pair,
        names=names,
        note=_note([row["seeds"] for row in rows]),
        rows=[
            {
                "method": row["method"],
                "seeds": row["seeds"],
                "scores": [score_cell(row, name) for name in names],
                "seconds": human_seconds(row["seconds"]),
                "tflop": f"{row['tflop']:,.1f}",
                "parameters": f"{row['trained_parameters']:,}",
            }
            for row in rows
        ],
    )


def _note(seeds: Sequence[int]) -> str:
    """What the marks are."""
    if max(seeds) == 1:
        return "One seed each, which says nothing of the spread."
    one = " Of one seed, nothing is known of the spread." if min(seeds) == 1 else ""
    return f"Means over the seeds; the line and ± are one standard deviation.{one}"


def scatter(rows: Sequence[Mapping[str, Any]], x_name: str, y_name: str) -> str:
    """One score against another as SVG; the numbers are those of the table's rows, counted from 1."""
    values = [(row["scores"][x_name]["mean"], row["scores"][y_name]["mean"]) for row in rows]
    low = min(0.0, *(value for pair in values for value in pair))
    high = max(1.0, *(value for pair in values for value in pair))

    def place(value: float) -> float:
        return _EDGE + (_SIZE - 2 * _EDGE) * (value - low) / (high - low)

    parts = []
    for step in range(6):
        value = low + (high - low) * step / 5
        at = place(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_EDGE}" y2="{_SIZE - _EDGE}"/>')
        parts.append(
            f'<line class="grid" y1="{_SIZE - at:.1f}" y2="{_SIZE - at:.1f}" x1="{_EDGE}" x2="{_SIZE - _EDGE}"/>'
        )
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{_SIZE - _EDGE + 16}" text-anchor="middle">{value:.1f}</text>'
        )
        parts.append(
            f'<text class="tick" x="{_EDGE - 6}" y="{_SIZE - at + 4:.1f}" text-anchor="end">{value:.1f}</text>'
        )
    for number, (row, (x, y)) in enumerate(zip(rows, values, strict=True), 1):
        title = f"<title>{escape(row['method'])}: {x:.3f}, {y:.3f}</title>"
        at_x, at_y = place(x), _SIZE - place(y)
        parts.append(f'<g>{title}<circle class="dot" cx="{at_x:.1f}" cy="{at_y:.1f}" r="5"/>')
        parts.append(f'<text class="tick" x="{at_x + 7:.1f}" y="{at_y - 5:.1f}">{number}</text></g>')
    middle = _SIZE / 2
    parts.append(f'<text class="label" x="{middle}" y="{_SIZE - 8}" text-anchor="middle">{escape(x_name)}</text>')
    turned = f'transform="rotate(-90 12 {middle})"'
    parts.append(f'<text class="label" x="12" y="{middle}" text-anchor="middle" {turned}>{escape(y_name)}</text>')
    head = f'<svg viewBox="0 0 {_SIZE} {_SIZE}" class="chart" role="img"'
    return f'{head} aria-label="{escape(y_name)} against {escape(x_name)}, by method">{"".join(parts)}</svg>'
