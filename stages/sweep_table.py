"""The table of a sweep."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from data_tools.tables import score_cell


def summarize(results: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per method of (method, result) pairs, best score first: mean and spread over its seeds.

    The spread is the standard deviation; of one seed it is None.
    """
    rows = []
    for method in dict.fromkeys(method for method, _ in results):
        each = [result for name, result in results if name == method]
        scores = {}
        for name in each[0]["scores"]:
            values = [result["scores"][name] for result in each]
            scores[name] = {
                "mean": statistics.fmean(values),
                "spread": statistics.stdev(values) if values[1:] else None,
            }
        rows.append(
            {
                "method": method,
                "seeds": len(each),
                "scores": scores,
                "seconds": statistics.fmean(result["seconds"] for result in each),
                "cpu_seconds": _mean_of_known([result.get("cpu_seconds") for result in each]),
                "unet_rows": _mean_of_known([result.get("unet_rows") for result in each]),
                "tflop": statistics.fmean(result["tflop"] for result in each),
                "trained_parameters": each[0]["trained_parameters"],
                "bytes_per_record": each[0]["bytes_per_record"],
            }
        )
    return sorted(rows, key=lambda row: -next(iter(row["scores"].values()), {"mean": 0.0})["mean"])


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    """None where one of them was not measured: the run was begun by an older version."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def whole_number(value: float | None) -> str:
    """For a cell of a table."""
    return "unknown" if value is None else f"{value:,.0f}"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of a sweep; bytes of a cached record are named where methods differ in them."""
    names = list(rows[0]["scores"])
    columns = {"seeds": "{seeds}", "CPU s": "{cpu}", "UNet rows": "{unet}", "TFLOP": "{tflop:.1f}"}
    columns["trained parameters"] = "{trained_parameters:,}"
    if len({row["bytes_per_record"] for row in rows}) > 1:
        columns["bytes a record"] = "{bytes_per_record:,.0f}"
    head = ["method", *names, *columns]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        scores = [score_cell(row, name) for name in names]
        counts = {"cpu": whole_number(row["cpu_seconds"]), "unet": whole_number(row["unet_rows"])}
        cells = [row["method"], *scores, *(form.format(**row, **counts) for form in columns.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
