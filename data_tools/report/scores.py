"""Scores as dot plots: a mark for the mean, a line for its 95 % interval, and the teacher's score beside it."""

from __future__ import annotations

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
    scale = (0.0, 1.0) if not measure else _range(detail["mean"] for detail in rows.values())
    order = sorted(rows, key=lambda row: (list(LABELS).index(row) if row in LABELS else len(LABELS), row))
    teacher = rows["teacher"]["mean"]["accuracy"] if "teacher" in rows else None
    return {
        "title": f"{prompt_set} prompts",
        "explanation": explanation,
        "low": f"{scale[0]:g}",
        "high": f"{scale[1]:g}",
        "teacher": None if teacher is None else _percent(teacher, scale),
        "dots": [_dot(label(row), style(row), rows[row]["mean"], scale) for row in order],
        "parts": [
            {"title": f"by {kind[:-1]}", "dots": dots}
            for kind in ("attributes", "concepts")
            if (dots := _parts(rows, kind, scale))
        ],
    }


def _parts(rows: Mapping[str, Mapping[str, Any]], kind: str, scale: tuple[float, float]) -> list[dict[str, Any]]:
    """The adapter's score of each attribute or concept, with the teacher's place; the worst first."""
    if "adapter" not in rows:
        return []
    own, teacher = rows["adapter"].get(kind, {}), rows.get("teacher", {}).get(kind, {})
    dots = []
    for name in sorted(own, key=lambda name: own[name]["accuracy"])[:_PARTS_SHOWN]:
        dot = _dot(name, "adapter", own[name], scale)
        dot["teacher"] = _percent(teacher[name]["accuracy"], scale) if name in teacher else None
        dots.append(dot)
    return dots if len(dots) > 1 else []


def _dot(name: str, kind: str, mean: Mapping[str, Any], scale: tuple[float, float]) -> dict[str, Any]:
    known = mean["low"] is not None and mean["high"] is not None
    interval = f"{mean['low']:.3f} to {mean['high']:.3f}, " if known else ""
    return {
        "label": name,
        "style": kind,
        "place": _percent(mean["accuracy"], scale),
        "low": _percent(mean["low"] if known else mean["accuracy"], scale),
        "high": _percent(mean["high"] if known else mean["accuracy"], scale),
        "value": f"{mean['accuracy']:.3f}",
        "interval": f"{interval}n = {mean['n']}",
        "teacher": None,
    }


def _range(means: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Ends of an axis that holds all intervals, on twentieths."""
    limits = [value for mean in means for value in (mean["low"], mean["accuracy"], mean["high"]) if value is not None]
    return int(min(limits) * 20 - 1) / 20, int(max(limits) * 20 + 1) / 20


def _percent(value: float, scale: tuple[float, float]) -> str:
    low, high = scale
    return f"{min(100.0, max(0.0, 100 * (value - low) / (high - low))):.1f}"
