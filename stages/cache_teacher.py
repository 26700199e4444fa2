"""Fill the cache: a pool of Ray actors, each with its own frozen models, turns tars into shards.

    pea cache --config configs/demo.yaml
    ray job submit --address http://HEAD:8265 --working-dir . -- python -m stages.cache_teacher --config FILE

One tar becomes one shard. To resume, run the same command: finished shards are skipped. A tar whose worker dies is
tried again; a sample that keeps ending its process is left out; a tar that keeps failing is named and fails the run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pea.config import Config
from stages.command.common import add_config_arguments, command_main, run_stage
from stages.command.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of every stage, and what changes a cache that is there."""
    add_config_arguments(parser)
    parser.add_argument(
        "--extend",
        action="store_true",
        help="let a cache grow by tars, draws or blocks, or by attention queries where it has none",
    )
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="TAR",
        help="make all samples of a tar again, from the file that is there now (may be repeated)",
    )
    parser.add_argument(
        "--retire",
        action="append",
        default=[],
        metavar="TAR",
        help="take a tar out of the cache for good, with all its samples (may be repeated)",
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run the stage that the command line describes."""

    def run(config: Config, console: Console) -> None:
        from stages.cluster.filling import fill_caches  # it brings Ray, which is slow to import
        from stages.cluster.planning import TarChanges

        changes = TarChanges(tuple(arguments.replace), tuple(arguments.retire))
        fill_caches(config, console, extend=arguments.extend, changes=changes)

    return run_stage(run, arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
