"""The table and the figure of a sweep."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from typing import Any


def summarize(results: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per method of (method, result) pairs: mean and standard deviation over its seeds, best score first."""
    rows = []
    for method in dict.fromkeys(method for method, _ in results):
        each = [result for name, result in results if name == method]
        scores = {}
        for name in each[0]["scores"]:
            values = [result["scores"][name] for result in each]
            scores[name] = {"mean": statistics.fmean(values), "spread": statistics.stdev(values) if values[1:] else 0.0}
        rows.append(
            {
                "method": method,
                "seeds": len(each),
                "scores": scores,
                "seconds": statistics.fmean(result["seconds"] for result in each),
                "tflop": statistics.fmean(result["tflop"] for result in each),
                "trained_parameters": each[0]["trained_parameters"],
                "bytes_per_record": each[0]["bytes_per_record"],
            }
        )
    return sorted(rows, key=lambda row: -next(iter(row["scores"].values()), {"mean": 0.0})["mean"])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of a sweep; bytes of a cached record are named where methods differ in them."""
    names = list(rows[0]["scores"])
    columns = {"seeds": "{seeds}", "seconds": "{seconds:.0f}", "TFLOP": "{tflop:.1f}"}
    columns["trained parameters"] = "{trained_parameters:,}"
    if len({row["bytes_per_record"] for row in rows}) > 1:
        columns["bytes a record"] = "{bytes_per_record:,.0f}"
    head = ["method", *names, *columns]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        scores = [f"{row['scores'][name]['mean']:.3f} ± {row['scores'][name]['spread']:.3f}" for name in names]
        cells = [row["method"], *scores, *(form.format(**row) for form in columns.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """Scores of each method with the spread over seeds: PNG."""
    from matplotlib.figure import Figure

    names = list(rows[0]["scores"])
    figure = Figure(figsize=(7, 0.19 * len(rows) * len(names) + 1), dpi=144, layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [index + number * height for index in range(len(rows))]
        means = [row["scores"][name]["mean"] for row in rows]
        spreads = [row["scores"][name]["spread"] for row in rows]
        axes.barh(places, means, height=0.9 * height, xerr=spreads, label=name)
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(rows))], [row["method"] for row in rows])
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set(xlabel="judge's accuracy", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
