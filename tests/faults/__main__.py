"""Whole walks, by hand: every fault at every storage operation, in minutes to hours.

    python -m tests.faults                                  the scenarios that there are
    python -m tests.faults FILL --kinds kill,tear           one walk; all kinds by default
    python -m tests.faults FILL --kinds kill,power --replay   in half of the time: see below
    python -m tests.faults FILL REMOVE --sample 200 --seed 3 --jobs 2
    python -m tests.faults FILL --bucket --kinds kill,lose  over requests, in a bucket of an S3 server on the loopback

Ends with 1 if something was found. Scenarios may also be given as ``module:NAME``. With ``--replay`` what a command
that is ended (kill, tear, power) leaves is looked up in the log of the undisturbed one, and no process is ended for it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import get_args

from tests.faults.control import Kind
from tests.faults.report import Report
from tests.faults.walk import forked_walk

CACHE, TRAINING = "tests.faults.cache_scenarios", "tests.faults.training_scenarios"
SCENARIOS = {
    **{name: f"{CACHE}:{name}" for name in ("FILL", "EXTEND", "REPAIR", "REMOVE", "COPY")},
    **{name: f"{TRAINING}:{name}" for name in ("OUTPUT", "TRAINING", "EVAL")},
}
_SECONDS_BETWEEN_LINES = 30.0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--kinds", default="", help="kill, fail, ...: see tests/faults; all by default")
    parser.add_argument("--bucket", action="store_true", help="walk over requests to a bucket")
    parser.add_argument("--replay", action="store_true", help="kill, tear and power by the log of one command")
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


def _walk(scenario: str, arguments: argparse.Namespace) -> Report:
    chosen = tuple(filter(None, arguments.kinds.split(",")))
    if arguments.bucket:
        from tests.faults import request_walk

        with request_walk.request_walk(scenario) as requests:
            struck = requests.faults(*chosen or request_walk.KINDS, sample=arguments.sample, seed=arguments.seed)
            return requests.run(struck, seconds=arguments.seconds, progress=_Progress())
    with forked_walk(scenario, arguments.jobs, replay=arguments.replay) as walk:
        faults = walk.faults(*chosen or get_args(Kind), sample=arguments.sample, seed=arguments.seed)
        return walk.run(faults, seconds=arguments.seconds, progress=_Progress())


def main(argv: Sequence[str] | None = None) -> int:
    """Walk; returns the exit code."""
    arguments = _parse(argv)
    if not arguments.scenarios:
        print("\n".join(SCENARIOS))
        return 0
    num_findings = 0
    for name in arguments.scenarios:
        report = _walk(SCENARIOS.get(name, name), arguments)
        print(f"{name}: {report}", flush=True)
        num_findings += len(report.findings) + len(report.forbidden_litter)
    return int(num_findings > 0)


if __name__ == "__main__":
    sys.exit(main())
