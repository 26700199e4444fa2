"""Whole walks, by hand: every fault at every storage operation, in minutes to hours.

    python -m tests.faults                                  the scenarios that there are
    python -m tests.faults FILL --kinds kill,tear           one walk; all kinds by default
    python -m tests.faults FILL REMOVE --sample 200 --seed 3 --jobs 2

Ends with 1 if something was found. Scenarios may also be given as ``module:NAME``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import get_args

from tests.faults.control import Kind
from tests.faults.walk import Report, forked_walk

CACHE, TRAINING = "tests.faults.cache_scenarios", "tests.faults.training_scenarios"
SCENARIOS = {
    **{name: f"{CACHE}:{name}" for name in ("FILL", "EXTEND", "REPAIR", "REMOVE")},
    **{name: f"{TRAINING}:{name}" for name in ("OUTPUT", "TRAINING")},
}
_SECONDS_BETWEEN_LINES = 30.0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--kinds", default=",".join(get_args(Kind)))
    parser.add_argument("--sample", type=int, help="so many faults, drawn by the seed; otherwise all")
    parser.add_argument("--seconds", type=float, help="no longer than this, for each scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args(argv)


class _Progress:
    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, report: Report) -> None:
        if time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            print(f"... {report.num_steps} of {report.num_planned}, {len(report.findings)} findings", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Walk; returns the exit code."""
    arguments = _parse(argv)
    if not arguments.scenarios:
        print("\n".join(SCENARIOS))
        return 0
    num_findings = 0
    for name in arguments.scenarios:
        with forked_walk(SCENARIOS.get(name, name), arguments.jobs) as walk:
            faults = walk.faults(*arguments.kinds.split(","), sample=arguments.sample, seed=arguments.seed)
            report = walk.run(faults, seconds=arguments.seconds, progress=_Progress())
        print(f"{name}: {report}", flush=True)
        num_findings += len(report.findings)
    return int(num_findings > 0)


if __name__ == "__main__":
    sys.exit(main())
