"""The share of a training step that is spent waiting for data, in every phase of a real training run.

    python -m tests.benchmarks.bench_waiting --config configs/demo.yaml             (after make demo)
    python -m tests.benchmarks.bench_waiting --steps 200 train.num_workers=0

Trains from the cache of the configuration, in a run folder of its own, `--steps` steps in each phase. The trainer is
the product's; what is measured is the time that its loops are blocked in `next(batches)`, against the time of whole
steps, which the trainer counts itself. The first batch of a phase, for which nobody could have read ahead, is told
apart. `train.num_workers` is 2 unless the configuration says otherwise.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from pea.batches.dataset import prefetch
from pea.config import Config, load_config
from stages.command.common import guarded
from stages.command.console import Console
from stages.train_adapter import run
from stages.training import with_unet, without_unet
from tests.benchmarks import harness

_STEPS = 60


class Waits:
    """Stands in for the loops' ``prefetch``, and notes how long each of its batches was waited for."""

    def __init__(self) -> None:
        self.of_phases: list[list[float]] = []
        """Seconds of each wait, phase by phase."""

    def prefetch(self, fetch: Callable[[int], Any], indices: Iterable[int], num_ahead: int) -> Iterator[Any]:
        """As the real one."""
        waits: list[float] = []
        self.of_phases.append(waits)
        with closing(prefetch(fetch, indices, num_ahead)) as batches:  # type: ignore[type-var]
            while True:
                started = time.perf_counter()
                batch = next(batches, None)
                if batch is None:
                    return
                waits.append(time.perf_counter() - started)
                yield batch


def short(config: Config, folder: Path, steps: int) -> Config:
    """The same training with few steps a phase and nothing but steps in it, in a folder of its own."""
    phases = tuple(phase.model_copy(update={"steps": steps}) for phase in config.train.phases)
    train = config.train.model_copy(update={"phases": phases, "steps": steps, "trackers": ()})
    cache_root = config.cache_root or config.run_dir / "cache"
    return config.model_copy(update={"run_dir": folder / "run", "cache_root": cache_root, "train": train})


def measure(config: Config, rounds: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Phase -> what -> its values, round by round."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        waits = Waits()
        with (
            tempfile.TemporaryDirectory(prefix="pea-bench-") as folder,
            mock.patch.object(with_unet, "prefetch", waits.prefetch),
            mock.patch.object(without_unet, "prefetch", waits.prefetch),
        ):
            summary = run(short(config, Path(folder), steps), Console(quiet=True))
        assert len(summary["phases"]) == len(waits.of_phases)
        for number, (phase, of_phase) in enumerate(zip(summary["phases"], waits.of_phases, strict=True), start=1):
            assert len(of_phase) == phase["steps"], (len(of_phase), phase)
            first, *later = of_phase
            each = found.setdefault(f"{number} {phase['kind']}", {})
            for name, value in {
                "step_ms": 1000 * phase["seconds"] / phase["steps"],
                "median_wait_ms": 1000 * statistics.median(later),
                "first_wait_ms": 1000 * first,
                "share": sum(later) / (phase["seconds"] - first),
                "share_with_first": sum(of_phase) / phase["seconds"],
            }.items():
                each.setdefault(name, []).append(value)
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "waiting")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--steps", type=int, default=_STEPS, help=f"of each phase (default: {_STEPS})")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)

    def act() -> int:
        config = load_config(arguments.config, arguments.overrides)
        found = measure(config, arguments.rounds, 200 if arguments.full else arguments.steps)
        rows = [
            [
                phase,
                *(harness.spread(each[name]) for name in ("step_ms", "median_wait_ms", "first_wait_ms")),
                *(harness.spread([100 * share for share in each[name]]) for name in ("share", "share_with_first")),
            ]
            for phase, each in found.items()
        ]
        head = ["phase", "step, ms", "median wait, ms", "first wait, ms", "share waiting, %", "with the first, %"]
        result = {"num_workers": config.train.num_workers, "phases": found}
        harness.publish(arguments.out, harness.table(head, rows), result, load)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
