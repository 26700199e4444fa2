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

from pea.cache import Cache, cache_identity
from pea.config import Config
from pea.corpus.tars import check_tars, expand_tars
from stages.cluster.pool import Actors, Pool
from stages.cluster.retries import Job
from stages.cluster.summary import check, describe, summarize
from stages.command.common import add_config_arguments, command_main, run_stage
from stages.command.console import Console, bold
from stages.command.preflight import preflight
from stages.command.progress import StageProgress


def run(config: Config, console: Console, *, extend: bool = False) -> dict[str, Any]:
    """Cache every corpus of the configuration; returns the summaries by corpus. ``extend`` lets a cache grow.

    Raises:
        IdentityError: a cache was made from something else.
        CorpusError: a tar is missing or damaged.
        CheckpointError: a model folder is missing or incomplete.
        CacheError: a tar failed for good, or more samples were dropped than ``cache.max_dropped_fraction`` allows.
        DiskFullError: the disk is full; the same command completes the cache once there is room.
    """
    for line in preflight(config):
        console.print(f"unchecked: {line}", soft_wrap=True)
    corpora = [name for name in ("parallel", "culture") if getattr(config.corpora, name) is not None]
    summaries = {}
    with Actors(config) as actors:
        for corpus in corpora:
            jobs = _plan(config, corpus, console, extend=extend)
            summaries[corpus] = _run_jobs(config, corpus, jobs, actors, console)
    for corpus in corpora:
        check(config.cache_dir(corpus), summaries[corpus], config.cache)
    return summaries


def _plan(config: Config, corpus: str, console: Console, *, extend: bool) -> list[Job]:
    """Write or check the manifest, and list the tars that are still to be done."""
    tars = {tar.name: tar.location for tar in expand_tars(getattr(config.corpora, corpus).tars)}
    directory = config.cache_dir(corpus)
    console.print(bold(corpus, f": {len(tars)} tars -> {directory}"))
    if extend or not (directory / "manifest.json").exists():
        # a damaged tar must not become part of the cache's identity
        extensions = getattr(config.corpora, corpus).reading_rules(config.cache).image_extensions
        if empty := check_tars(tars.values(), extensions):
            console.print(f"  {len(empty)} tars have no samples: {', '.join(empty)}", highlight=False, markup=False)
    cache = Cache.create_or_resume(directory, cache_identity(config, corpus), extend=extend)
    journals = config.run_dir.resolve() / "state" / "in_flight" / corpus
    jobs = [
        Job(part, tars[part.tar], journals / f"{part.tar}.{part.part}", config.cache.run.max_tries)
        for part in cache.plan()
    ]
    num_finished = len(cache.manifest.parts) - len(jobs)
    if not jobs:
        console.print(f"  all {num_finished} shards are finished already")
    elif num_finished:
        console.print(f"  {num_finished} shards are finished already, {len(jobs)} to do")
    return jobs


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
    """Those of every stage, and ``--extend``."""
    add_config_arguments(parser)
    parser.add_argument("--extend", action="store_true", help="let a finished cache grow by tars, draws or blocks")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run the stage that the command line describes."""
    return run_stage(lambda config, console: run(config, console, extend=arguments.extend), arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
