"""Time of a training step from the cache against the same step that asks the teacher, side by side in one run.

    python -m tests.benchmarks.bench_training --config configs/demo.yaml

Needs a filled cache (`make demo`). Both kinds of step read the same rows and share text states and latents; they differ
in the teacher's UNet pass alone, so the ratio is a lower bound of what a recipe gains that also encodes images and
captions at each step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from pea.config import Config, load_config
from pea.losses import LossWeights
from pea.student import student_losses
from stages.common import guarded
from stages.train_setup import Setup, prepare


def measure(config: Config, rounds: int) -> dict[str, float]:
    """Median seconds of a step of each kind over interleaved rounds, and the median of the rounds' ratios."""
    setups = {
        kind: prepare(config.model_copy(update={"train": config.train.model_copy(update={"targets": kind})}), _CPU)
        for kind in ("cached", "live")
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in setups}
    for number in range(rounds + 1):
        for kind, setup in setups.items():
            elapsed = _step(setup, number)
            if number:  # the first round warms up
                seconds[kind].append(elapsed)
    ratios = [live / cached for cached, live in zip(seconds["cached"], seconds["live"], strict=True)]
    result = {f"{kind}_step_s": statistics.median(times) for kind, times in seconds.items()}
    return result | {"live_over_cached": statistics.median(ratios)}


_CPU = torch.device("cpu")


def _step(setup: Setup, number: int) -> float:
    started = time.perf_counter()
    batch = setup.data.batch(number)
    hidden, mask = setup.native_states(batch.native_captions)
    assert hidden is not None
    losses = student_losses(batch, hidden, mask, setup.adapter, setup.teacher, setup.source, LossWeights())
    losses.total.backward()
    setup.adapter.zero_grad()
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description="A training step from the cache against one that asks the teacher.")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--rounds", type=int, default=9, help="pairs of steps (default: 9)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)

    def act() -> int:
        figures = measure(load_config(arguments.config, arguments.overrides), arguments.rounds)
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
