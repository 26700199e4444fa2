"""Fill the cache: a pool of Ray actors, each with its own frozen teacher, turns tars into shards.

    pea cache --config configs/demo.yaml
    ray job submit --address http://HEAD:8265 --working-dir . -- python -m stages.cache_teacher --config FILE

Unit of work: one tar, one shard. To resume, run the same command: finished shards are skipped. A tar whose worker
dies is tried again; a sample that was being decoded each time is quarantined; a tar that keeps failing is named and
fails the run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pea.cache import Cache, PartPlan, cache_identity
from pea.config import Config
from pea.errors import CacheError, CorpusError, DiskFullError, PeaError, is_disk_full
from pea.samples import expand_tars, tar_name
from stages.common import stage_main

_ROOT = Path(__file__).resolve().parents[1]
_SUMMARY = "run_summary.json"
_OBJECT_STORE_BYTES = 100 * 2**20  # only small progress messages travel through it


@dataclass
class Job:
    """One tar to be cached, with the history of its failures."""

    part: PartPlan
    path: Path
    tries: int = 0
    done: int = 0
    """Samples finished in the current try."""
    suspects: Counter[str] = field(default_factory=Counter)
    """Key that was being decoded when the worker died -> how often."""
    error: str = ""

    def journal(self, cache_dir: Path) -> Path:
        """File that names the sample being decoded."""
        return cache_dir / "state" / f"{self.part.tar}.{self.part.part}.in_flight"


@ray.remote(max_restarts=0)
class TeacherActor:
    """Keeps the models on its device and collects one tar after the other."""

    def __init__(self, config: str, corpus: str, device: str) -> None:
        import torch

        from pea.collect import Collector

        threads = os.environ.get("OMP_NUM_THREADS")
        torch.set_num_threads(int(threads) if threads else 1)
        self._config = Config.model_validate_json(config)
        self._cache = Cache.open(self._config.cache_dir(corpus), partial=True)
        self._collector = Collector(self._config, corpus, _device(device))

    def collect(self, part: PartPlan, path: str, skip: list[str], journal: str) -> Any:
        """Streams the number of samples done, then the tar's summary."""
        Path(journal).parent.mkdir(parents=True, exist_ok=True)
        with Path(journal).open("w", encoding="utf-8") as file:

            def in_flight(key: str) -> None:
                file.seek(0)
                file.truncate()
                file.write(key)
                file.flush()

            yield from self._collector.collect(self._cache, part, Path(path), skip=skip, in_flight=in_flight)
        Path(journal).unlink(missing_ok=True)


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def run(config: Config, console: Console) -> dict[str, Any]:
    """Cache every corpus of the configuration; returns the summary by corpus.

    Raises:
        IdentityError: the cache was made from something else.
        CacheError: a tar failed for good, or more samples were dropped than `cache.max_dropped_fraction` allows.
        DiskFullError: the disk is full; the same command completes the cache once there is room.
    """
    summaries = {}
    for corpus in ("parallel", "culture"):
        if getattr(config.corpora, corpus) is not None:
            summaries[corpus] = _run_corpus(config, corpus, console)
    return summaries


def _run_corpus(config: Config, corpus: str, console: Console) -> dict[str, Any]:
    started = time.monotonic()
    tars = {tar_name(path): path for path in expand_tars(getattr(config.corpora, corpus).tars)}
    cache_dir = config.cache_dir(corpus)
    console.print(f"[bold]{corpus}[/bold]: {len(tars)} tars -> {cache_dir}")
    cache = Cache.create_or_resume(cache_dir, cache_identity(config, corpus))
    plan = cache.plan()
    jobs = [Job(part, tars[part.tar]) for part in plan]
    if not jobs:
        console.print(f"  all {len(cache.shards)} shards are finished: nothing to do")
    else:
        console.print(f"  {len(cache.shards)} shards are finished, {len(jobs)} to do")
        _start_ray(config)
        _Pool(config, corpus, console).run(jobs)
    return _summarize(config, corpus, jobs, time.monotonic() - started, console)


def _start_ray(config: Config) -> None:
    """Join the cluster that is configured, or start a local Ray that goes away with this process."""
    if ray.is_initialized():
        return
    address = config.cache.run.ray_address or os.environ.get("RAY_ADDRESS")
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address:
        options["address"] = address
    else:
        run = config.cache.run
        options |= {
            "num_cpus": max(os.cpu_count() or 1, round(run.num_actors * run.num_cpus_per_actor)),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "runtime_env": {"env_vars": {"PYTHONPATH": path}},
        }
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CacheError(
            "cannot start or join Ray", where=address or "local", got=str(error).splitlines()[0]
        ) from error


class _Pool:
    """Hands jobs to actors, follows their progress, and replaces actors that died."""

    def __init__(self, config: Config, corpus: str, console: Console) -> None:
        self._config, self._corpus, self._console = config, corpus, console
        self._cache_dir = config.cache_dir(corpus)
        self._running: dict[Any, tuple[Any, Job]] = {}
        """Stream of results -> (actor, job)."""

    def run(self, jobs: list[Job]) -> None:
        waiting = deque(jobs)
        idle = [self._new_actor() for _ in range(min(self._config.cache.run.num_actors, len(jobs)))]
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task("samples", total=None, rate="")
            started, done, finished = time.monotonic(), 0, 0
            while waiting or self._running:
                while waiting and idle:
                    self._start(idle.pop(), waiting.popleft())
                for stream in ray.wait(list(self._running), num_returns=1)[0]:
                    news = self._advance(stream)
                    if isinstance(news, int):
                        done += news
                        draws = max(1, jobs[0].part.num_draws)
                        progress.update(
                            bar,
                            completed=done,
                            rate=f"{done * draws / (time.monotonic() - started):.0f} records/s",
                        )
                        continue
                    actor, job = self._running.pop(stream)
                    if news is None:
                        finished += 1
                        progress.update(bar, total=round(done * len(jobs) / finished))
                        idle.append(actor)
                    else:
                        done -= job.done
                        idle.append(self._after_failure(actor, job, news, waiting))
        for actor in idle:
            ray.kill(actor)

    def _new_actor(self) -> Any:
        run = self._config.cache.run
        options: dict[str, Any] = {"num_cpus": run.num_cpus_per_actor, "num_gpus": run.num_gpus_per_actor}
        threads = str(max(1, int(run.num_cpus_per_actor)))
        options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": threads}}
        return TeacherActor.options(**options).remote(self._config.model_dump_json(), self._corpus, run.device)

    def _start(self, actor: Any, job: Job) -> None:
        job.tries += 1
        job.done = 0
        journal = job.journal(self._cache_dir.resolve())
        skip = [key for key, times in job.suspects.items() if times >= min(2, self._config.cache.run.max_tries)]
        stream = actor.collect.options(num_returns="streaming").remote(
            job.part, str(job.path.resolve()), skip, str(journal)
        )
        self._running[stream] = (actor, job)

    def _advance(self, stream: Any) -> int | Exception | None:
        """Samples that were newly done, None at the end of the tar, or what went wrong."""
        _, job = self._running[stream]
        try:
            item = ray.get(next(stream))
        except StopIteration:
            return None
        except (ray.exceptions.RayError, PeaError, OSError) as error:
            return error
        if isinstance(item, int):
            job.done += item
            return item
        return 0

    def _after_failure(self, actor: Any, job: Job, error: Exception, waiting: deque[Job]) -> Any:
        """Queue the job again or give it up; returns an actor that is fit for work."""
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, DiskFullError) or is_disk_full(cause):
            raise DiskFullError(
                "no space left on the disk",
                where=self._cache_dir,
                remedy="Make room and run the same command again.",
            ) from error
        if isinstance(cause, PeaError) and not isinstance(cause, CorpusError):
            raise cause
        died = isinstance(error, ray.exceptions.RayActorError)
        job.error = "the worker process died" if died else str(cause).strip().splitlines()[0]
        journal = job.journal(self._cache_dir)
        if died and journal.exists():
            job.suspects[journal.read_text(encoding="utf-8")] += 1
        if isinstance(cause, CorpusError) or job.tries >= self._config.cache.run.max_tries + len(job.suspects):
            self._console.print(f"  [red]{job.part.tar} failed:[/red] {job.error}")
        else:
            self._console.print(f"  [yellow]{job.part.tar}: {job.error}; trying again[/yellow]")
            job.error = ""
            waiting.append(job)
        if not died:
            return actor
        return self._new_actor()


def _summarize(config: Config, corpus: str, jobs: list[Job], seconds: float, console: Console) -> dict[str, Any]:
    """Write and check the run's summary: a run that lost a tar, or too many samples, fails."""
    cache_dir = config.cache_dir(corpus)
    cache = Cache.open(cache_dir, partial=True)
    dropped: Counter[str] = Counter()
    num_bytes = 0
    for shard in cache.shards:
        dropped.update(rejected.reason for rejected in shard.record.dropped)
        num_bytes += shard.record.num_bytes
    failed = {job.part.tar: job.error for job in jobs if job.error}
    previous = json.loads((cache_dir / _SUMMARY).read_text()) if (cache_dir / _SUMMARY).exists() else {}
    summary = {
        "shards": len(cache.shards),
        "failed": failed,
        "samples": cache.num_samples,
        "records": cache.num_records,
        "bytes": num_bytes,
        "dropped": dict(dropped),
        "seconds": round(previous.get("seconds", 0.0) + (seconds if jobs else 0.0), 2),
    }
    temporary = cache_dir / f"{_SUMMARY}.tmp"
    temporary.write_text(json.dumps(summary, indent=2))
    os.replace(temporary, cache_dir / _SUMMARY)
    console.print(
        f"  {cache.num_samples} samples, {cache.num_records} records, {num_bytes / 1e6:.1f} MB, "
        f"dropped {sum(dropped.values())}"
    )
    if failed:
        raise CacheError(
            f"{len(failed)} of {len(failed) + len(cache.shards)} tars failed",
            where=", ".join(failed),
            got="; ".join(sorted(set(failed.values()))),
            remedy="Repair or remove them and run the same command again; finished shards are kept.",
        )
    share = sum(dropped.values()) / max(1, sum(dropped.values()) + cache.num_samples)
    if share > config.cache.max_dropped_fraction:
        raise CacheError(
            "too many samples were dropped",
            where=cache_dir,
            expected=f"at most {config.cache.max_dropped_fraction:.2%} (cache.max_dropped_fraction)",
            got=f"{share:.2%}: " + ", ".join(f"{reason} {count}" for reason, count in dropped.items()),
            remedy="`pea inspect` lists them by key.",
        )
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return stage_main(run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
