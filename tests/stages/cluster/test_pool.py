"""What the pool makes of an actor's events and of its failures; Ray is played."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from pea.cache import PartPlan
from pea.collect.events import Done, Finished, Started, Task
from pea.config import Config
from pea.errors import CheckpointError, CorpusError, DiskFullError, LeaseHeldError, StorageError
from pea.storage import Location
from stages.cluster import schedule as schedule_module
from stages.cluster.actors import Actors
from stages.cluster.node_trust import Node
from stages.cluster.pool import Pool
from stages.cluster.retries import Job
from stages.cluster.teacher_actor import BusyElsewhere, DoneByAnother, InFlight
from stages.command import progress as progress_module
from stages.command.console import Console
from stages.command.progress import StageProgress

Script = Callable[[Task], list[Any]]
"""What an actor says of a task; an error ends it."""
NORMAL: list[Any] = [Started(2), Done(2), Finished(num_samples=2, stage_seconds={"vae": 1.0})]


class FakeActors(Actors):
    """One node that always has an actor, which follows a script."""

    def __init__(self, config: Config, script: Script) -> None:
        super().__init__(config)
        self._script = script
        self.tasks: list[Task] = []
        self.options: list[dict[str, Any]] = []
        self.dropped = 0
        self._new: dict[int, Node] = {0: Node("a", "host a")}

    def arrived(self) -> dict[int, Node]:
        new, self._new = self._new, {}
        return new

    def ask_for(self, *_: Any) -> frozenset[str]:
        return frozenset({"a"})

    def handle(self, number: int) -> Any:
        return SimpleNamespace(collect=SimpleNamespace(options=self._with_options))

    def _with_options(self, **options: Any) -> Any:
        self.options.append(options)
        return SimpleNamespace(remote=self._collect)

    def _collect(self, _corpus: str, task: Task, _ours: object) -> Iterator[Any]:
        self.tasks.append(task)
        return iter(self._script(task))

    def drop(self, number: int) -> None:
        self.dropped += 1
        self._new = {number + 1: Node("a", "host a")}


def _get(item: Any) -> Any:
    if isinstance(item, Exception):
        raise item
    return item


def in_task(cause: Exception) -> RayTaskError:
    """An error as Ray brings it back from a worker."""
    return RayTaskError("collect", f"traceback: {cause}", cause)


@pytest.fixture
def work(fresh_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], Any]:
    """Run one job by a script; returns (job, actors, what was shown)."""
    monkeypatch.setattr(ray, "wait", lambda streams, **_: (streams[:1], []))
    monkeypatch.setattr(ray, "get", _get)
    monkeypatch.setattr(schedule_module, "POSTPONED_S", 0.0)
    tar = tmp_path / "a.tar"
    tar.write_bytes(b"x")

    def run(script: Script) -> tuple[Job, FakeActors, str]:
        actors, shown = FakeActors(fresh_run, script), io.StringIO()
        job = Job(PartPlan("a", "p000", "whole", 0, 3, ()), Location.parse(tar), max_tries=3)
        pool = Pool(fresh_run, "parallel", [job], actors)
        with StageProgress(Console(file=shown, width=300), "parallel", "records") as progress:
            pool.run(progress)
        return job, actors, shown.getvalue()

    return run


def one_after_the_other(*answers: list[Any]) -> Script:
    """Another answer for each try; the last one again and again."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_events_are_counted(work: Callable[[Script], Any]) -> None:
    job, actors, _ = work(one_after_the_other(NORMAL))
    assert (job.error, job.num_done, job.num_expected, actors.dropped) == ("", 2, 2, 0)


def test_while_models_load_that_is_said(work: Callable[[Script], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_LINE_EVERY_S", 0.0)
    _, _, shown = work(one_after_the_other([InFlight("k"), *NORMAL]))
    first = shown.splitlines()[0]
    assert first == "  parallel: 0 records, the workers load their models"


def test_more_samples_than_a_size_let_expect_are_not_called_all(
    work: Callable[[Script], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "_LINE_EVERY_S", 0.0)
    _, _, shown = work(one_after_the_other([Started(2), Done(1), Done(4), Finished(num_samples=5, stage_seconds={})]))
    lines = [line.partition(" records")[0] for line in shown.splitlines()]
    assert lines[:3] == ["  parallel: 0% 0", "  parallel: 50% 3", "  parallel: 15"]


@pytest.mark.parametrize("error", [ActorDiedError(), OutOfMemoryError("killed")])
def test_a_death_makes_careful_and_the_key_that_kills_is_left_out(work: Callable[[Script], Any], error: Any) -> None:
    def script(task: Task) -> list[Any]:
        return NORMAL if "k" in task.skip else [Started(2), InFlight("j"), InFlight("k"), error]

    job, actors, shown = work(script)
    assert job.quarantined == ["k"] and actors.dropped == 3
    assert [task.careful for task in actors.tasks] == [False, True, True, True]
    assert "_generator_backpressure_num_objects" not in actors.options[0]
    assert all(options["_generator_backpressure_num_objects"] == 1 for options in actors.options[1:])
    assert "died at sample k" in shown


@pytest.mark.parametrize("error", [ActorUnavailableError("gone", None), ActorDiedError(None)])
def test_a_lost_node_is_nobodys_fault(work: Callable[[Script], Any], error: Any) -> None:
    if isinstance(error, ActorDiedError):
        error.error_msg = "The actor died because its node has died. Node Id: 0"
    job, actors, shown = work(one_after_the_other([Started(2), error], NORMAL))
    assert (job.tries, job.careful, actors.dropped) == (0, False, 1) and "node is gone; trying again" in shown


def test_an_error_keeps_the_actor_and_its_traceback(work: Callable[[Script], Any], fresh_run: Config) -> None:
    job, actors, _ = work(one_after_the_other([in_task(OSError("flaky"))], NORMAL))
    assert (job.error, job.tries, actors.dropped) == ("", 1, 0)
    assert "flaky" in (fresh_run.run_dir / "state" / "errors" / "parallel" / "a.p000.txt").read_text()


def test_a_bad_tar_is_given_up_at_once_and_storage_is_tried_again(work: Callable[[Script], Any]) -> None:
    job, actors, _ = work(one_after_the_other([in_task(CorpusError("truncated"))]))
    assert job.error == "truncated" and len(actors.tasks) == 1
    job, actors, _ = work(one_after_the_other([in_task(StorageError("503"))]))
    assert job.error == "503" and len(actors.tasks) == 3


@pytest.mark.parametrize("error", [CheckpointError("no weights"), DiskFullError("full"), OSError(errno.ENOSPC, "full")])
def test_what_no_try_can_mend_ends_the_run(work: Callable[[Script], Any], error: Exception) -> None:
    with pytest.raises((CheckpointError, DiskFullError)):
        work(one_after_the_other([in_task(error)]))


@pytest.mark.parametrize("busy", [[BusyElsewhere("process 1 on b")], [in_task(LeaseHeldError("held"))]])
def test_what_another_run_works_on_is_looked_at_again(work: Callable[[Script], Any], busy: list[Any]) -> None:
    job, actors, shown = work(one_after_the_other(busy, busy, [DoneByAnother()]))
    assert (job.error, job.tries, len(actors.tasks)) == ("", 0, 3)
    assert shown.count("another run is working on it") == 1
