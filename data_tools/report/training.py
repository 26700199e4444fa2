"""The training of a run: a sentence from its summary, and one chart of losses a phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.charts import Series, line_chart
from pea.config import Config, TrainConfig
from pea.plurals import count_of

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
    kinds = [each["kind"] for each in summary["phases"]]
    phases = ", ".join(f"{each['steps']:,} {_KINDS[each['kind']]}" for each in summary["phases"])
    steps = f"{count_of(summary['steps'], 'optimizer step')}"
    steps += f" ({phases})" if len(kinds) > 1 else f" {_KINDS[kinds[0]]}" if kinds else ""
    said = [f"{steps} in {duration}", count_of(summary["trained_parameters"], "trained parameter"), *_sources(summary)]
    return f"{', '.join(said)}."


def _sources(summary: Mapping[str, Any]) -> list[str]:
    """What was trained on: texts alone read captions and no records, and a live teacher is asked anew."""
    kinds = [each["kind"] for each in summary["phases"]]
    samples = summary.get("captions", {}).get("parallel", {}).get("with_caption")
    if kinds and set(kinds) == {"text"}:
        return [] if samples is None else [f"captions of {count_of(samples, 'sample')}"]
    live = summary.get("targets") == "live" and "unet" in kinds
    sources = [f"{count_of(summary['records'], 'record')}, answered by the teacher at every step"]
    if not live:
        sources = [count_of(summary["records"], "cached record")]
    return sources + ([count_of(summary["culture_samples"], "culture image")] if summary["culture_samples"] else [])


def loss_charts(config: Config, log: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A chart for each phase that has logged losses; `terms`: whether it shows parts, which add up to the total."""
    settings = config.train.all_phases
    kinds = [each["kind"] for each in summary.get("phases", ())]
    charts = []
    for number, kind in enumerate(kinds, 1):
        rows = [row for row in log if row.get("phase", 1) == number and "loss" in row]
        # Other phases in the configuration than were trained say nothing of these.
        train = settings[number - 1].train if [each.kind for each in settings[:number]] == kinds[:number] else None
        series = _series(rows, train, kind)
        if series:
            title = f"Phase {number}, {_KINDS[kind]}" if len(kinds) > 1 else _KINDS[kind][0].upper() + _KINDS[kind][1:]
            chart = line_chart(
                series, x_label="optimizer step", y_label=_loss_label(kind, train), title=f"{title}: losses by step"
            )
            charts.append({"title": title, "chart": chart, "terms": len(series) > 1})
    return charts


def _loss_label(kind: str, train: TrainConfig | None) -> str:
    if kind != "text" or train is None:
        return "loss"  # a sum of different errors
    return "loss (distance)" if train.text_error == "distance" else "loss (mean squared error)"


def _series(rows: Sequence[Mapping[str, Any]], train: TrainConfig | None, kind: str) -> list[Series]:
    """The total, and what is known of its parts; `train`: the phase's settings, None: unknown."""
    lines: dict[str, list[tuple[float, float]]] = {"total": []}
    for row in rows:
        parts = {} if train is None else contributions(row, train, kind)
        for name, value in ({"total": row["loss"]} | parts).items():
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
