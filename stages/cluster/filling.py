"""Fill the caches of a configuration: plan the parts that are missing, hand them to the actors, sum up."""

from __future__ import annotations

import time
from typing import Any

from pea.cache import Cache, cache_identity
from pea.config import Config
from pea.corpus.corpus_names import DISTILLED, CorpusName
from pea.corpus.tars import expand_tars
from stages.cluster.actors import Actors
from stages.cluster.pool import Pool
from stages.cluster.retries import Job
from stages.cluster.session import RaySession
from stages.cluster.summary import check, describe, summarize
from stages.cluster.tar_facts import TarFacts
from stages.command.console import Console, bold
from stages.command.preflight import preflight
from stages.command.progress import StageProgress


def fill_caches(config: Config, console: Console, *, extend: bool = False) -> dict[str, Any]:
    """Cache every corpus of the configuration; returns the summaries by corpus. ``extend`` lets a cache grow.

    Raises:
        IdentityError: a cache was made from something else.
        CorpusError: a tar is missing or damaged.
        CheckpointError: a model folder is missing or incomplete.
        CacheError: a tar failed for good, or more samples were dropped than ``cache.max_dropped_fraction`` allows.
        DiskFullError: the disk is full; the same command completes the cache once there is room.
    """
    for line in preflight(config):
        console.print(f"unchecked: {line}")
    corpora = config.corpora.names
    summaries = {}
    with Actors(config) as actors:
        for corpus in corpora:
            jobs = _plan(config, corpus, actors.session, console, extend=extend)
            summaries[corpus] = _run_jobs(config, corpus, jobs, actors, console)
    for corpus in corpora:
        check(config.cache_dir(corpus), summaries[corpus], config.cache)
    return summaries


def _plan(config: Config, corpus: CorpusName, session: RaySession, console: Console, *, extend: bool) -> list[Job]:
    """Write or check the manifest, and list the tars that are still to be done."""
    source = config.corpora.source(corpus)
    tars = expand_tars(source.tars)
    directory = config.cache_dir(corpus)
    console.print(bold(corpus, f": {len(tars)} tars -> {directory}"))
    facts = TarFacts(config.run_dir / "state", source.reading_rules(config.cache).image_extensions)
    if missing := facts.missing(tars):
        with StageProgress(console, f"{corpus}, reading the tars", "MB") as progress:
            facts.read(missing, session, progress)
    if empty := facts.check_samples(tars):
        console.print(f"  {len(empty)} tars have no samples: {', '.join(empty)}")
    identity = cache_identity(config, corpus, identify=facts.identity)
    cache = Cache.create_or_resume(directory, identity, extend=extend)
    places = {tar.name: tar.location for tar in tars}
    jobs = [Job(part, places[part.tar], config.cache.run.max_tries) for part in cache.plan()]
    num_finished = len(cache.manifest.parts) - len(jobs)
    if not jobs:
        console.print(f"  all {num_finished} shards are finished already")
    elif num_finished:
        console.print(f"  {num_finished} shards are finished already, {len(jobs)} to do")
    return jobs


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
    console.print(f"  {describe(summary)}")
    return summary
