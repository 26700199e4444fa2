"""The table of a sweep."""

from __future__ import annotations

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
