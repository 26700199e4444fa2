"""Scores as dot plots: a mark for the mean, a line for its 95 % interval, and the teacher's score beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_tools.report.rows import LABELS, MEASURES, label, split_score, style

_PARTS_SHOWN = 40
"""Concepts of a prompt set, the worst first."""


def score_plots(details: Mapping[str, Mapping[str, Any]], sets: Sequence[str]) -> list[dict[str, Any]]:
    """One plot a prompt set and measure: its rows, then what the adapter scores by attribute and by concept."""
    plots = []
    for prompt_set in sets:
        for measure, explanation in MEASURES.items():
            rows = {}
            for name, detail in details.items():
                row, of_set, of_measure = split_score(name)
                if (of_set, of_measure) == (prompt_set, measure):
                    rows[row] = detail
            if rows:
                plots.append(_plot(prompt_set, measure, explanation, rows))
    return plots


def _plot(prompt_set: str, measure: str, explanation: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    means = {row: detail["mean"] for row, detail in rows.items()}
    scale = (0.0, 1.0) if not measure else _range(means.values())
    order = sorted(rows, key=lambda row: (list(LABELS).index(row) if row in LABELS else len(LABELS), row))
    others = {row: None if row == "teacher" else means.get("teacher") for row in order}
    dots = [_dot(label(row), style(row), means[row], scale, others[row]) for row in order]
    return {
        "title": f"{prompt_set} prompts",
        "explanation": explanation,
        "low": f"{scale[0]:g}",
        "high": f"{scale[1]:g}",
        "dots": dots,
        "compared": any(dot["teacher"] for dot in dots),
        "intervals": any(mean["low"] is not None and mean["high"] is not None for mean in means.values()),
        "parts": [
            {"title": f"by {kind[:-1]}", "dots": dots, "left_out": max(0, len(rows["adapter"][kind]) - len(dots))}
            for kind in ("attributes", "concepts")
            if (dots := _parts(rows, kind, scale))
        ],
    }


def _parts(rows: Mapping[str, Mapping[str, Any]], kind: str, scale: tuple[float, float]) -> list[dict[str, Any]]:
    """The adapter's score of each attribute or concept, with the teacher's place; the worst first."""
    if "adapter" not in rows:
        return []
    own, teacher = rows["adapter"].get(kind, {}), rows.get("teacher", {}).get(kind, {})
    known = [name for name, mean in own.items() if math.isfinite(mean["accuracy"])]
    worst = sorted(known, key=lambda name: own[name]["accuracy"])[:_PARTS_SHOWN]
    dots = [_dot(name, "adapter", own[name], scale, teacher.get(name)) for name in worst]
    return dots if len(dots) > 1 else []


def _dot(
    name: str, kind: str, mean: Mapping[str, Any], scale: tuple[float, float], teacher: Mapping[str, Any] | None
) -> dict[str, Any]:
    """`teacher`: its mean, shown beside one of as many prompts."""
    known = mean["low"] is not None and mean["high"] is not None
    interval = f"{mean['low']:.3f} to {mean['high']:.3f}, " if known else ""
    value, compared = mean["accuracy"], teacher is not None and teacher["n"] == mean["n"]
    return {
        "label": name,
        "style": kind,
        "place": _percent(value, scale),
        "low": _percent(mean["low"] if known else value, scale),
        "high": _percent(mean["high"] if known else value, scale),
        "value": f"{value:.3f}" if math.isfinite(value) else "not a number",
        "interval": f"{interval}n = {mean['n']}",
        "teacher": _percent(teacher["accuracy"], scale) if teacher is not None and compared else None,
    }


def _range(means: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Ends of an axis that holds all intervals, on twentieths."""
    known = [value for mean in means for value in (mean["low"], mean["accuracy"], mean["high"]) if value is not None]
    limits = [value for value in known if math.isfinite(value)] or [0.0, 1.0]
    return math.floor(min(limits) * 20 - 0.5) / 20, math.ceil(max(limits) * 20 + 0.5) / 20


def _percent(value: float, scale: tuple[float, float]) -> str | None:
    """Where a value stands on the axis; None where it is no number."""
    low, high = scale
    return f"{min(100.0, max(0.0, 100 * (value - low) / (high - low))):.1f}" if math.isfinite(value) else None
