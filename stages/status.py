"""Say how far a run is: caches and who fills them, training, scores; from any machine that sees its storage.

    pea status --config configs/demo.yaml
    pea status --config configs/demo.yaml --json

Nothing is written but what a look at a cache remembers (`totals.json`), and nothing is asked of a cluster: what is told
lies beside the data. A cache without a living writer is not being filled, whatever a terminal elsewhere shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from pea.plurals import count_of
from stages.command.common import add_config_arguments, command_main

_NO_WRITER = "nobody is writing it (a run that begins first reads the tars and loads its models)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea status``."""
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Print the status of a run."""
    from data_tools.run_status import run_status
    from data_tools.tables import say
    from stages.command.common import config_from

    status = run_status(config_from(arguments))
    say(json.dumps(status, indent=2, ensure_ascii=False) if arguments.json else "\n".join(lines_of(status)))
    return 0


def lines_of(status: dict[str, Any]) -> list[str]:
    """The status for people."""
    training = status["training"]
    shown_below = training["writers"] if training else ()
    lines = [f"run         {status['run_dir']}"]
    lines += [f"            {writer}" for writer in status["writers"] if writer not in shown_below]
    for name, cache in status["caches"].items():
        lines += [f"{name:<11} not begun"] if cache is None else _of_cache(name, cache)
    lines += ["training    not begun"] if training is None else _of_training(training)
    scores = status["evaluation"]
    told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items()) if scores else "not done"
    if scores == {}:
        told = "images drawn, and not scored"
    return [*lines, f"evaluation  {told}"]


def _of_cache(name: str, cache: dict[str, Any]) -> list[str]:
    from data_tools.tables import human_bytes, human_rate, human_seconds

    parts = cache["parts"]
    share = parts["finished"] / max(1, parts["all"])
    amount = (
        f"{count_of(cache['samples'], 'sample')}, {count_of(cache['records'], 'record')}, {human_bytes(cache['bytes'])}"
    )
    lines = [f"{name:<11} {share:.0%}: {parts['finished']:,} of {parts['all']:,} shards, {amount}"]
    if cache["records_per_s"] is not None:
        rate = human_rate(cache["records_per_s"], 1, "records")
        lines.append(f"            {rate}, {human_seconds(cache['seconds_left'])} left")
    if parts["finished"] < parts["all"]:
        lines += [f"            {writer}" for writer in cache["writers"]] or [f"            {_NO_WRITER}"]
    if cache["dropped"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in cache["dropped"].items())
        lines.append(f"            left out: {reasons}")
    return lines


def _of_training(training: dict[str, Any]) -> list[str]:
    from data_tools.tables import human_rate, human_seconds

    step, steps = training["step"], training["steps"]
    done = count_of(step, "step") if steps is None else f"{step:,} of {count_of(steps, 'step')}"
    said = [f"phase {training['phase']}" if "phase" in training else "", done]
    if training.get("loss") is not None:
        said.append(f"loss {training['loss']:.4g}")
    if training.get("rows_per_s"):
        said.append(human_rate(training["rows_per_s"], 1, "rows"))
    if training.get("seconds_left"):
        said.append(f"{human_seconds(training['seconds_left'])} left")
    lines = [f"training    {', '.join(each for each in said if each)}"]
    lines += [f"            {owner}" for owner in training["writers"]]
    if training["published"]:
        lines.append(f"            adapter in {training['place']}")
    elif not training["writers"]:
        lines.append("            nobody is training; the same command goes on")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
