"""Works through jobs: carries out what the schedule decides, and tells it what came of it."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from pea.collect.events import Done, Finished, Started
from pea.config import Config
from pea.corpus.corpus_names import CorpusName
from pea.errors import DiskFullError, LeaseHeldError, PeaError, is_disk_full
from stages.cluster.actors import ActorGroup, Actors
from stages.cluster.metrics import RunMetrics
from stages.cluster.retries import Job, Tried
from stages.cluster.schedule import Schedule
from stages.cluster.session import first_line
from stages.cluster.teacher_actor import ActorEvent, BusyElsewhere, DoneByAnother, InFlight
from stages.command.progress import StageProgress

_POLL_S = 1.0
_ONE_AT_A_TIME = 1  # the worker goes on when the driver has taken what it said


class Shown(Protocol):
    """Where a person reads what happens."""

    def print(self, line: str) -> None:
        """A line."""


Screen = TypeVar("Screen", bound=Shown)
AnyJob = TypeVar("AnyJob", bound=Tried)


class JobPool(ABC, Generic[AnyJob, Screen]):
    """Hands jobs to actors, follows their events, and replaces actors that died."""

    def __init__(self, jobs: Sequence[AnyJob], actors: ActorGroup, num_actors: int, place: object) -> None:
        """``place``: what is written to, for messages."""
        self._jobs, self._actors, self._place = jobs, actors, place
        self._schedule = Schedule(jobs, num_actors, actors.trust)
        self._streams: dict[Any, tuple[int, AnyJob]] = {}
        """Stream of events -> (actor, job)."""
        self._staffed = float("-inf")

    @abstractmethod
    def _begin(self, handle: Any, job: AnyJob) -> Any:
        """Give an actor a job; the stream of its events."""

    @abstractmethod
    def _note(self, actor: int, job: AnyJob, event: Any) -> None:
        """An event of a job."""

    @abstractmethod
    def _show(self, progress: Screen) -> None:
        """What happened since it was shown last."""

    def _after_success(self, actor: int) -> None:
        self._schedule.finished(actor)

    def _failed(self, job: AnyJob, error: Exception) -> None:
        """A try has failed."""

    def run(self, progress: Screen) -> None:
        """Work until every job has succeeded or has been given up.

        Raises:
            DiskFullError: the disk is full.
            DeviceError, ConfigError: the cluster has no room for an actor.
            CacheError: Ray cannot be started or joined, or is gone.
            PeaError: an error that another try cannot mend.
        """
        for number, node in self._actors.running.items():
            self._schedule.add(number, node)
        while not self._schedule.is_done:
            self._staff(progress)
            while (given := self._schedule.next()) is not None:
                job = cast("AnyJob", given.job)
                self._streams[self._begin(self._actors.handle(given.actor), job)] = (given.actor, job)
            for stream in self._wait():
                self._follow(stream)
            self._show(progress)
        self._actors.drop_all_pending()

    def _staff(self, progress: Screen) -> None:
        """Let actors come and go with the nodes and with the work that is left."""
        for number, node in self._actors.arrived().items():
            self._schedule.add(number, node)
        for number in self._schedule.dispensable():
            self._schedule.remove(number)
            self._actors.drop(number)
        if time.monotonic() - self._staffed >= _POLL_S:
            self._staffed = time.monotonic()
            roomy = self._actors.ask_for(
                self._schedule.num_useful, self._schedule.avoid(), lambda line: progress.print(f"  {line}")
            )
            self._schedule.see_nodes(roomy)

    def _wait(self) -> list[Any]:
        """The streams with events."""
        awaited = [*self._streams, *self._actors.awaited]
        if not awaited:
            time.sleep(_POLL_S)
            return []
        ready = ray.wait(awaited, num_returns=1, timeout=_POLL_S)[0]
        return [each for each in ready if each in self._streams]

    def _follow(self, stream: Any) -> None:
        actor, job = self._streams[stream]
        try:
            self._note(actor, job, ray.get(next(stream)))
            return
        except StopIteration:
            self._after_success(actor)
        except (RayError, PeaError, OSError) as error:
            self._after_failure(actor, job, error)
        del self._streams[stream]

    def _after_failure(self, actor: int, job: AnyJob, error: Exception) -> None:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if is_disk_full(cause):
            remedy = "Make room and run the same command again."
            raise DiskFullError("the disk is full", where=self._place, remedy=remedy) from error
        if isinstance(cause, LeaseHeldError):
            self._schedule.postpone(actor, first_line(cause))
        elif isinstance(error, RayError) and not isinstance(error, RayTaskError):
            gone = isinstance(error, ActorUnavailableError) or "its node has died" in str(error)
            self._actors.drop(actor)
            (self._schedule.lost if gone else self._schedule.died)(actor)
        else:
            self._failed(job, error)
            self._schedule.failed(actor, cause, first_line(cause))


class Pool(JobPool[Job, StageProgress]):
    """The jobs of one corpus, whose tars become shards."""

    def __init__(self, config: Config, corpus: CorpusName, jobs: list[Job], actors: Actors) -> None:
        super().__init__(jobs, actors, config.cache.run.num_actors, config.cache_dir(corpus))
        self._tracebacks, self._corpus = config.run_dir / "state" / "errors" / corpus, corpus
        self._metrics = RunMetrics(corpus)
        self._others: dict[int, DoneByAnother | BusyElsewhere] = {}
        """Actor -> what another run has to do with its job."""
        self._bytes = {job.name: job.size_bytes for job in jobs}
        self.stage_seconds: Counter[str] = Counter()
        """Stage -> seconds, over all finished jobs."""

    def _begin(self, handle: Any, job: Job) -> Any:
        options: dict[str, Any] = {"num_returns": "streaming"}
        if job.careful:
            options["_generator_backpressure_num_objects"] = _ONE_AT_A_TIME
        processes = frozenset(self._actors.processes)
        return handle.collect.options(**options).remote(self._corpus, job.task(), processes)

    def _note(self, actor: int, job: Job, event: ActorEvent) -> None:
        if isinstance(event, Started):
            job.num_expected = event.num_expected
        elif isinstance(event, Done):
            job.num_done += event.num_samples
        elif isinstance(event, InFlight):
            job.key_in_flight = event.key
        elif isinstance(event, DoneByAnother | BusyElsewhere):
            self._others[actor] = event
        elif isinstance(event, Finished):
            self.stage_seconds.update(event.stage_seconds)

    def _after_success(self, actor: int) -> None:
        other = self._others.pop(actor, None)
        if isinstance(other, DoneByAnother):
            self._schedule.done_by_another(actor)
        elif isinstance(other, BusyElsewhere):
            self._schedule.postpone(actor, other.owner)
        else:
            self._schedule.finished(actor)

    def _failed(self, job: Job, error: Exception) -> None:
        _keep_traceback(self._tracebacks / f"{job.part.tar}.{job.part.part}.txt", error)

    def _show(self, progress: StageProgress) -> None:
        """What happened, and how far it is; tars that no actor has opened are estimated from their size."""
        self._metrics.update(self._jobs, self._schedule.open_jobs)
        for line in self._schedule.lines:
            progress.print(f"  {line}")
        self._schedule.lines.clear()
        counted = [job for job in self._jobs if job.num_expected]
        if not counted:
            progress.update(0, None, 0, "the workers load their models")
            return
        expected = sum(job.num_expected for job in counted)
        total = expected * sum(self._bytes.values()) / sum(self._bytes[job.name] for job in counted)
        records = sum(job.num_done * max(1, job.part.num_draws) for job in self._jobs)
        done = sum(job.num_done for job in self._jobs)
        progress.update(done, total if done <= total else None, records)  # else too few were expected of a tar


def _keep_traceback(path: Path, error: Exception) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
