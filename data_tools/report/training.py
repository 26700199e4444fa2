"""The training of a run: a sentence from its summary, and one chart of losses a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.charts import Series, line_chart
from pea.config import Config, TrainConfig

_KINDS = {"text": "on texts alone", "attention": "on cached attention queries", "unet": "with the UNet"}
_TERMS = {
    "noise_pred": "noise prediction",
    "features": "block features",
    "diffusion": "diffusion loss (culture)",
    "text": "text states",
    "attention": "attention layers' outputs",
    "pooled": "pooled embedding",
}


def training_note(summary: Mapping[str, Any], duration: str) -> str:
    """One sentence; empty where the adapter was not trained here. `duration`: of the training, as it is shown."""
    if not summary:
        return ""
    phases = ", ".join(f"{each['steps']:,} {_KINDS[each['kind']]}" for each in summary["phases"])
    sources = [f"{summary['records']:,} cached records"]
    if summary["culture_samples"]:
        sources.append(f"{summary['culture_samples']:,} culture images")
    return (
        f"{summary['steps']:,} optimizer steps ({phases}) in {duration}, "
        f"{summary['trained_parameters']:,} trained parameters, {' and '.join(sources)}."
    )


def loss_charts(config: Config, log: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A chart for each phase that has logged losses; its terms are weighted and add up to the total."""
    settings = [train for _, train in config.train.all_phases]
    kinds = [each["kind"] for each in summary.get("phases", ())]
    charts = []
    for number, kind in enumerate(kinds, 1):
        rows = [row for row in log if row.get("phase", 1) == number and "loss" in row]
        series = _series(rows, settings[number - 1], kind) if number <= len(settings) else []
        if series:
            title = f"Phase {number}, {_KINDS[kind]}"
            distance = kind == "text" and settings[number - 1].text_error == "distance"
            unit = "distance" if distance else "mean squared error"
            chart = line_chart(
                series, x_label="optimizer step", y_label=f"loss ({unit})", title=f"{title}: losses by step"
            )
            charts.append({"title": title, "chart": chart})
    return charts


def _series(rows: Sequence[Mapping[str, Any]], train: TrainConfig, kind: str) -> list[Series]:
    lines: dict[str, list[tuple[float, float]]] = {"total": []}
    for row in rows:
        for name, value in ({"total": row["loss"]} | contributions(row, train, kind)).items():
            if math.isfinite(value) and value > 0:
                lines.setdefault(name, []).append((float(row["step"]), float(value)))
    shown = [Series(name, points) for name, points in lines.items() if points]
    return shown[:1] if len(shown) == 2 else shown  # a single term is the total


def contributions(row: Mapping[str, Any], train: TrainConfig, kind: str) -> dict[str, float]:
    """What each term adds to the loss of a logged row.

    Block features have a factor each, which the log does not hold: they are what the other terms leave of the total.
    """
    if kind == "text":
        return {}  # one term: the total
    if kind == "attention":
        factors = {"text": train.text_weight, "attention": 1.0, "pooled": 1.0}
        return {_TERMS[name]: factor * row[name] for name, factor in factors.items() if factor and name in row}
    factors = {
        "noise_pred": train.noise_pred_weight,
        "diffusion": train.diffusion_weight,
        "text": train.text_weight,
        "attention": train.attention_weight,
    }
    added = {name: factor * row[name] for name, factor in factors.items() if factor and name in row}
    if row.get("features"):
        added["features"] = row["loss"] - sum(added.values())
    return {_TERMS[name]: value for name, value in added.items()}
