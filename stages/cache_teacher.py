"""Fill the cache: a pool of Ray actors, each with its own frozen models, turns tars into shards.

    pea cache --config configs/demo.yaml
    ray job submit --address http://HEAD:8265 --working-dir . -- python -m stages.cache_teacher --config FILE

One tar becomes one shard. To resume, run the same command: finished shards are skipped. A tar whose worker dies is
tried again; a sample that keeps ending its process is left out; a tar that keeps failing is named and fails the run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from pea.config import Config
from stages.cluster.actors import Actors
from stages.cluster.planning import Corpus, TarChanges, known_tars, plan_corpora
from stages.cluster.pool import Pool
from stages.cluster.retries import Job
from stages.cluster.summary import check, describe, summarize
from stages.command.common import add_config_arguments, command_main, run_stage
from stages.command.console import Console
from stages.command.early_look import look_at_corpus
from stages.command.preflight import preflight
from stages.command.progress import StageProgress

CORPORA: tuple[Corpus, ...] = ("parallel", "culture")


def run(
    config: Config,
    console: Console,
    *,
    extend: bool = False,
    changes: TarChanges = TarChanges(),  # noqa: B008 (frozen)
) -> dict[str, Any]:
    """Cache every corpus of the configuration; returns the summaries by corpus.

    ``extend`` lets a cache grow; ``changes``: tars of caches that are replaced or retired first.

    Raises:
        IdentityError: a cache was made from something else.
        CorpusError: tars are missing or damaged, or most of the first samples would be left out.
        CheckpointError: a model folder is missing or incomplete.
        CacheError: a tar failed for good, or more samples were dropped than ``cache.max_dropped_fraction`` allows.
        DiskFullError: the disk is full; the same command completes the cache once there is room.
    """
    for line in preflight(config):
        console.print(f"unchecked: {line}")
    corpora = [name for name in CORPORA if getattr(config.corpora, name) is not None]
    for corpus in corpora:
        for line in look_at_corpus(config, corpus, known_tars(config.cache_dir(corpus))):
            console.print(line)
    summaries = {}
    with Actors(config) as actors:
        plans = plan_corpora(config, corpora, actors.session, console, extend=extend, changes=changes)
        for corpus, jobs in plans.items():
            summaries[corpus] = _run_jobs(config, corpus, jobs, actors, console)
    for corpus in corpora:
        check(config.cache_dir(corpus), summaries[corpus], config.cache)
    return summaries


def _run_jobs(config: Config, corpus: str, jobs: list[Job], actors: Actors, console: Console) -> dict[str, Any]:
    started = time.monotonic()
    pool = Pool(config, corpus, jobs, actors)
    try:
        if jobs:
            with StageProgress(console, corpus, "records" if corpus == "parallel" else "samples") as progress:
                pool.run(progress)
    finally:
        failed = {job.name: job.error for job in jobs if job.error}
        seconds = time.monotonic() - started
        summary = summarize(config.cache_dir(corpus), len(jobs), failed, seconds, pool.stage_seconds)
    console.print(f"  {describe(summary)}")
    return summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of every stage, and what changes a cache that is there."""
    add_config_arguments(parser)
    parser.add_argument("--extend", action="store_true", help="let a finished cache grow by tars, draws or blocks")
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
    changes = TarChanges(tuple(arguments.replace), tuple(arguments.retire))
    return run_stage(lambda config, console: run(config, console, extend=arguments.extend, changes=changes), arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
