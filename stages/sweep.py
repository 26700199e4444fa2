"""Train and score several methods from one cache, each with several seeds: one table, one figure.

    pea sweep configs/methods --config configs/demo.yaml --seeds 0,1,2

A method is a file of settings that is laid over the setup. Each (method, seed) has a run folder of its own in
`run_dir/sweep`; those that are finished are kept, so to go on after a stop, run the same command.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from pea.config import Config, load_config
from pea.config_text import parse_yaml
from pea.errors import ConfigError
from pea.files import write_bytes, write_text
from stages.common import add_config_arguments, config_from, save_resolved

_DONE = "sweep.json"


@dataclass(frozen=True)
class Run:
    """One method with one seed."""

    method: str
    seed: int
    config: Config

    @property
    def row(self) -> str:
        """The way to draw that is scored: the trained adapter, unless the method's file names another."""
        return self.config.evaluate.rows[0]

    @property
    def result_path(self) -> Path:
        """Written last."""
        return self.config.run_dir / _DONE

    def result(self) -> dict[str, Any] | None:
        """Scores, seconds and number of trained parameters; None before the run is finished."""
        if not self.result_path.exists():
            return None
        found: dict[str, Any] = json.loads(self.result_path.read_text("utf-8"))
        return found


def plan(files: Sequence[Path], overrides: Sequence[str], methods: Path, seeds: Sequence[int]) -> list[Run]:
    """Every run of a sweep.

    Raises:
        ConfigError: there are no methods, or one does not fit the setup.
    """
    paths = sorted(methods.glob("*.yaml")) if methods.is_dir() else [methods]
    if not paths or not all(path.is_file() for path in paths):
        raise ConfigError("no methods here", where=methods, expected="a folder of .yaml files, or one of them")
    base = load_config(files, overrides)
    runs = []
    for path in paths:
        for seed in seeds:
            folder = base.run_dir / "sweep" / path.stem / f"seed{seed}"
            settings = [
                f"run_dir={json.dumps(str(folder))}",
                f"cache_root={json.dumps(str(base.cache_root or base.run_dir / 'cache'))}",
                f"train.seed={seed}",
            ]
            if "rows" not in (parse_yaml(path.read_text("utf-8"), where=str(path)).get("evaluate") or {}):
                settings.append("evaluate.rows=[adapter]")
            runs.append(Run(path.stem, seed, load_config([*files, path], [*overrides, *settings])))
    return runs


def carry_out(run: Run, console: Console) -> dict[str, Any]:
    """Train and score one run, unless that was done with the same settings."""
    from stages import evaluate, train_adapter

    settings = run.config.model_dump(mode="json")
    known = run.result()
    if known is not None and known["settings"] == settings:
        console.print(f"{run.method}, seed {run.seed}: finished already", highlight=False)
        return known
    console.print(f"[bold]{run.method}[/bold], seed {run.seed}", highlight=False)
    save_resolved(run.config)
    summary = {"seconds": 0.0, "trained_parameters": 0}
    if run.row == "adapter":  # the others need no training
        summary = train_adapter.run(run.config, console)
    metrics = evaluate.run(run.config, console)
    scores = {name.partition(".")[2]: value for name, value in metrics.items() if name.startswith(f"{run.row}.")}
    result = {
        "scores": scores,
        "seconds": summary["seconds"],
        "trained_parameters": summary["trained_parameters"],
        "settings": settings,
    }
    write_text(run.result_path, json.dumps(result, indent=1) + "\n")
    return result


def summarize(results: Sequence[tuple[Run, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per method: mean and standard deviation over its seeds, best general score first."""
    rows = []
    for method in dict.fromkeys(run.method for run, _ in results):
        each = [result for run, result in results if run.method == method]
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
                "trained_parameters": each[0]["trained_parameters"],
            }
        )
    return sorted(rows, key=lambda row: -next(iter(row["scores"].values()), {"mean": 0.0})["mean"])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of a sweep."""
    names = list(rows[0]["scores"])
    head = ["method", *names, "seeds", "seconds", "trained parameters"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        scores = [f"{row['scores'][name]['mean']:.3f} ± {row['scores'][name]['spread']:.3f}" for name in names]
        cells = [row["method"], *scores, row["seeds"], f"{row['seconds']:.0f}", f"{row['trained_parameters']:,}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """Scores of each method with the spread over seeds: PNG."""
    names = list(rows[0]["scores"])
    figure = Figure(figsize=(7, 0.45 * len(rows) * len(names) + 1), dpi=144, layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [index + number * height for index in range(len(rows))]
        means = [row["scores"][name]["mean"] for row in rows]
        spreads = [row["scores"][name]["spread"] for row in rows]
        axes.barh(places, means, height=0.9 * height, xerr=spreads, label=name)
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(rows))], [row["method"] for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="judge's accuracy", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea sweep``."""
    parser.add_argument("methods", type=Path, metavar="METHODS", help="folder of method files, or one of them")
    add_config_arguments(parser)
    parser.add_argument("--seeds", default="0", metavar="N,N,...", help="seeds of the training (default: 0)")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Carry out a sweep, or say what it would do."""
    console, base = Console(), config_from(arguments)
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        raise ConfigError("not a list of seeds", where="--seeds", expected="0,1,2", got=arguments.seeds) from None
    runs = plan(arguments.config, arguments.overrides, arguments.methods, seeds)
    if arguments.dry_run:
        for run in runs:
            console.print(f"{run.method}, seed {run.seed}: {run.config.run_dir}", highlight=False, soft_wrap=True)
        return 0
    results = []
    for number, run in enumerate(runs, 1):
        console.print(f"{number}/{len(runs)} ", end="", highlight=False)
        results.append((run, carry_out(run, console)))
        rows = summarize(results)
        folder = base.run_dir / "sweep"
        write_text(folder / "table.json", json.dumps(rows, indent=1) + "\n")
        write_text(folder / "table.md", markdown(rows))
    write_bytes(folder / "figure.png", picture(rows))
    console.print(markdown(rows), highlight=False, markup=False, soft_wrap=True)
    return 0
