"""What each sketch costs and what it does to the adapter's gradient; recommends one per block for a byte budget.

The noise prediction counts as one more block.

    pea rd --config configs/demo.yaml --records 256 --budget 500

The frozen teacher is asked live about records of the cache, so its own sketches do not matter. The adapter is the
trained one where there is one, else a new one. Writes `rd.json`, `rd.md` and `rd.png` to `run_dir/rate_distortion`.
"""

from __future__ import annotations

import argparse

from stages.command.arguments import above_zero, at_least_one
from stages.command.common import add_config_arguments, config_from, save_resolved
from stages.command.console import Console
from stages.command.run_folder import working


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea rd``."""
    add_config_arguments(parser)
    parser.add_argument(
        "--records", type=at_least_one, default=256, metavar="N", help="records to measure on (default: 256)"
    )
    parser.add_argument(
        "--budget", type=above_zero, metavar="BYTES", help="recommend sketches for so many bytes a record"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Measure, write the files, and recommend."""
    config, console = config_from(arguments), Console()
    from stages.sketch_measurements import SETTINGS, measure_and_write  # it brings torch, which is slow to import

    if arguments.dry_run:
        console.print(f"{len(SETTINGS)} sketches of each block on {arguments.records} records")
        return 0
    with working(config, "pea rd") as here:
        save_resolved(config, here.run_dir)
        measure_and_write(here, console, arguments.records, arguments.budget)
    return 0
