"""Fill the caches of a configuration: plan the parts that are missing, hand them to the actors, sum up."""

from __future__ import annotations

import time
from typing import Any

from pea.config import Config
from pea.corpus.corpus_names import DISTILLED, CorpusName
from stages.cluster.actors import Actors
from stages.cluster.planning import TarChanges, known_tars, plan_corpora
from stages.cluster.pool import Pool
from stages.cluster.retries import Job
from stages.cluster.summary import check, describe, summarize
from stages.command.console import Console
from stages.command.early_look import look_at_corpus
from stages.command.preflight import preflight
from stages.command.progress import StageProgress


def fill_caches(
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
    corpora = config.corpora.names
    for corpus in (name for name in corpora if name != "described"):
        for line in look_at_corpus(config, corpus, known_tars(config.cache_dir(corpus))):
            console.print(line)
    summaries = {}
    with Actors(config) as actors:
        console.print(f"{actors.session.about}: looking at what is there, and what is missing")
        plans = plan_corpora(config, corpora, actors.session, console, extend=extend, changes=changes)
        for corpus, jobs in plans.items():
            summaries[corpus] = _run_jobs(config, corpus, jobs, actors, console)
    for corpus in corpora:
        check(config.cache_dir(corpus), summaries[corpus], config.cache)
    return summaries


def _run_jobs(config: Config, corpus: CorpusName, jobs: list[Job], actors: Actors, console: Console) -> dict[str, Any]:
    started = time.monotonic()
    pool = Pool(config, corpus, jobs, actors)
    try:
        if jobs:
            with StageProgress(console, corpus, "records" if corpus in DISTILLED else "samples") as progress:
                pool.run(progress)
    finally:
        failed = {job.name: job.error for job in jobs if job.error}
        seconds = time.monotonic() - started
        summary = summarize(config.cache_dir(corpus), len(jobs), failed, seconds, pool.stage_seconds)
    console.print(f"  {describe(summary, seconds)}")
    return summary
