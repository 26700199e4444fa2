"""Ray: the actors that hold the frozen models, and the pool that hands them tars and replaces those that died.

Nothing else of the stage knows where the work runs.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from pea.cache import Cache
from pea.collect.events import Done, Finished, News, Started, Task
from pea.config import Config
from pea.errors import (
    CacheError,
    CorpusError,
    DeviceError,
    DiskFullError,
    PeaError,
    ShardLockedError,
    is_disk_full,
)
from stages.cluster.capacity import Need, fewer_places, no_place, num_places
from stages.cluster.retries import Job
from stages.command.progress import StageProgress

_OBJECT_STORE_BYTES = 100 << 20  # only short messages travel through it
_POLL_S = 1.0


@ray.remote(max_restarts=0)
class TeacherActor:
    """Holds the frozen models on one device and collects one tar after the other."""

    def __init__(self, config: str, num_threads: int) -> None:
        self._config, self._num_threads = Config.model_validate_json(config), num_threads
        self._collectors: dict[str, Any] = {}

    def collect(self, corpus: str, task: Task, journal: str) -> Iterator[News]:
        """Write one part of a shard; streams what has been done. Models are loaded when they are first needed."""
        if corpus not in self._collectors:
            self._collectors[corpus] = self._load(corpus)
        cache = Cache.open(self._config.cache_dir(corpus), partial=True)
        with Path(journal).open("w", encoding="utf-8") as file:

            def in_flight(key: str) -> None:
                file.seek(0)
                file.truncate()
                file.write(key)
                file.flush()

            yield from self._collectors[corpus].collect(cache, task, in_flight)

    def _load(self, corpus: str) -> Any:
        import torch

        from pea.collect.collector import Collector

        torch.set_num_threads(self._num_threads)
        return Collector(self._config, corpus, _device(self._config.cache.run.device))


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError("no CUDA device on this worker", where="cache.run.device", got=name)
    return torch.device(name)


class Actors:
    """The actors that have no job. Joins or starts Ray when the first one is asked for, and leaves it at the end.

    No more of them are made than the cluster's nodes have room for, since Ray would wait in silence for a place. A
    cluster that tells Ray how far it scales (as KubeRay's does) is left to make the places; of any other, nodes that
    come or go are noticed, but one that starts without a node for even one actor is refused.
    """

    def __init__(self, config: Config) -> None:
        self._config = _with_absolute_paths(config)
        self._idle: list[Any] = []
        self._all: list[Any] = []
        self._started_ray = False
        self._made_any = False
        self._places_said = config.cache.run.num_actors

    def has_one(self, say: Callable[[str], None]) -> bool:
        """Whether `take` would give one that runs or can be placed; `say` is told when fewer fit than are asked for.

        Raises:
            CacheError: Ray cannot be started or joined.
            DeviceError, ConfigError: the cluster has no room for even one actor, and never had.
        """
        if self._idle:
            return True
        self._started_ray = _start_ray(self._config) or self._started_ray
        if _scales():
            return True
        need, num_actors = self._need(), self._config.cache.run.num_actors
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        places = num_places(need, nodes, num_actors)
        if not places and not self._made_any:
            raise no_place(need, nodes)
        if places < num_actors and places != self._places_said:
            say(f"  {fewer_places(need, num_actors, places)}")
        self._places_said = places
        return len(self._all) < max(1, places)

    def take(self) -> Any:
        """An actor that is ready for a job, or soon will be; ask `has_one` first."""
        return self._idle.pop() if self._idle else self._new()

    def give_back(self, actor: Any) -> None:
        """It has done its job."""
        self._idle.append(actor)

    def discard(self, actor: Any) -> None:
        """It has died, or is not to be trusted."""
        self._all.remove(actor)
        ray.kill(actor)

    def _need(self) -> Need:
        run = self._config.cache.run
        num_gpus = run.num_gpus_per_actor
        if not num_gpus and run.device in ("auto", "cuda") and ray.cluster_resources().get("GPU"):
            num_gpus = 1.0
        return Need(run.num_cpus_per_actor, num_gpus)

    def _new(self) -> Any:
        num_threads = max(1, int(self._config.cache.run.num_cpus_per_actor))
        actor = TeacherActor.options(**self._need()._asdict()).remote(self._config.model_dump_json(), num_threads)
        self._all.append(actor)
        self._made_any = True
        return actor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._all:
            ray.kill(actor)
        if self._started_ray:
            ray.shutdown()


def _start_ray(config: Config) -> bool:
    """Join the configured cluster, or start a local Ray. Returns whether this call did."""
    if ray.is_initialized():
        return False
    run = config.cache.run
    address = run.ray_address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        options["address"] = address
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options["num_cpus"] = max(os.cpu_count() or 1, math.ceil(run.num_actors * run.num_cpus_per_actor))
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise CacheError("cannot start or join Ray", where=address or "local", got=_first_line(error)) from error
    return True


def _scales() -> bool:
    """Whether the cluster has told Ray that it adds nodes when they are asked for; Ray Data asks it in the same way."""
    try:
        from ray._private.state import state

        cluster = state.get_cluster_config()
    except (ImportError, AttributeError, RayError):  # not a public name; and a Ray client cannot ask
        return False
    groups = cluster.node_group_configs if cluster else ()
    return any(group.max_count == -1 or group.max_count > group.min_count for group in groups)


def _with_absolute_paths(config: Config) -> Config:
    """A worker may have another working directory."""
    teacher = config.teacher.model_copy(update={"checkpoint": config.teacher.checkpoint.resolve()})
    cache_root = config.cache_root.resolve() if config.cache_root else None
    return config.model_copy(update={"teacher": teacher, "run_dir": config.run_dir.resolve(), "cache_root": cache_root})


class Pool:
    """Hands the jobs of one corpus to actors, follows their news, and replaces actors that died."""

    def __init__(self, config: Config, corpus: str, jobs: list[Job], actors: Actors) -> None:
        self._directory, self._num_actors = config.cache_dir(corpus), config.cache.run.num_actors
        self._corpus, self._jobs, self._actors = corpus, jobs, actors
        self._waiting = deque(jobs)
        self._running: dict[Any, tuple[Any, Job]] = {}
        """Stream of news -> (actor, job)."""
        self._bytes = {job.name: job.tar.status().size_bytes for job in jobs}
        self.stage_seconds: Counter[str] = Counter()
        """Stage -> seconds, over all finished jobs."""

    def run(self, progress: StageProgress) -> None:
        """Work until every job has succeeded or has been given up.

        Raises:
            DiskFullError: the disk is full.
            DeviceError, ConfigError: the cluster has no room for an actor.
            PeaError: an error that another try cannot mend.
        """
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self._num_actors and self._actors.has_one(progress.print):
                self._start(self._waiting.popleft())
            for stream in ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)[0]:
                self._follow(stream, progress)
            self._show(progress)

    def _start(self, job: Job) -> None:
        job.start()
        actor = self._actors.take()
        method = actor.collect.options(num_returns="streaming")
        self._running[method.remote(self._corpus, job.task(), str(job.journal))] = (actor, job)

    def _follow(self, stream: Any, progress: StageProgress) -> None:
        actor, job = self._running[stream]
        try:
            self._note(job, ray.get(next(stream)))
            return
        except StopIteration:
            job.finish()
            self._actors.give_back(actor)
        except (RayError, PeaError, OSError) as error:
            self._after_failure(actor, job, error, progress)
        del self._running[stream]

    def _note(self, job: Job, news: News) -> None:
        if isinstance(news, Started):
            job.num_expected = news.num_expected
        elif isinstance(news, Done):
            job.num_done += news.num_samples
        elif isinstance(news, Finished):
            self.stage_seconds.update(news.stage_seconds)

    def _show(self, progress: StageProgress) -> None:
        """Tars that no actor has opened are estimated from their size."""
        counted = [job for job in self._jobs if job.num_expected]
        if not counted:
            return
        expected = sum(job.num_expected for job in counted)
        total = expected * sum(self._bytes.values()) / sum(self._bytes[job.name] for job in counted)
        records = sum(job.num_done * max(1, job.part.num_draws) for job in self._jobs)
        progress.update(sum(job.num_done for job in self._jobs), total, records)

    def _after_failure(self, actor: Any, job: Job, error: Exception, progress: StageProgress) -> None:
        """Queue the job again or give it up."""
        cause = error.cause if isinstance(error, RayTaskError) else error
        if is_disk_full(cause):
            remedy = "Make room and run the same command again."
            raise DiskFullError("the disk is full", where=self._directory, remedy=remedy) from error
        if isinstance(cause, ShardLockedError) and job.locked():
            self._actors.give_back(actor)
            self._waiting.append(job)
            time.sleep(_POLL_S)
            return
        if isinstance(cause, PeaError) and not isinstance(cause, CorpusError):
            raise cause
        if isinstance(error, RayActorError | ActorUnavailableError):
            again = job.died(blame_sample="its node has died" not in str(error))
            self._actors.discard(actor)
        else:
            again = job.failed(_first_line(cause), final=isinstance(cause, CorpusError))
            _keep_traceback(job, error)
            self._actors.give_back(actor)
        progress.print(f"  {job.name}: {job.error}; {'trying again' if again else 'given up'}")
        if again:
            self._waiting.append(job)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else "no message"
    return text if isinstance(error, PeaError) else f"{type(error).__name__}: {text}"


def _keep_traceback(job: Job, error: Exception) -> None:
    path = job.journal.with_name(f"{job.journal.name}.error.txt")
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
