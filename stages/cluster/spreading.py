"""Work on a corpus that is spread over the nodes of a Ray cluster, one tar or one part of a table at a time.

What is done is a function that the caller gives; each actor makes it once (a model is loaded then) and does one piece
after the other with it. As in caching, a piece that fails is tried again, on another node first; what was finished
before is found by the function itself, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from data_tools.tables import say
from pea.config.cache import CacheRunConfig
from pea.errors import CorpusError
from pea.storage.processes import ProcessName, this_process
from stages.cluster.actors import ActorGroup
from stages.cluster.pool import JobPool, Shown
from stages.cluster.retries import Tried

_NAMED = 20
"""Pieces that failed, of which an error tells."""
Work = Callable[[Any], Any]
"""Does one piece, and says what came of it."""


@dataclass(eq=False)
class Piece(Tried):
    """A tar, or a part of a table."""

    about: Any
    """What the work is given."""
    label: str
    """What it is called."""

    @property
    def name(self) -> str:
        """As ``label``."""
        return self.label


@ray.remote(max_restarts=0)
class WorkActor:
    """Does one piece after the other, with what is made when the first one comes."""

    def __init__(self, make: Callable[[], Work], folder: str) -> None:
        """``folder``: what relative paths are of, where this node has it; else Ray's working directory."""
        if os.path.isdir(folder):
            os.chdir(folder)
        self._make, self._work = make, None

    def place(self) -> tuple[str, ProcessName]:
        """Ray's id of the node that it runs on, and its process."""
        return str(ray.get_runtime_context().get_node_id()), this_process()

    def do(self, about: Any) -> Iterator[Any]:
        """What comes of a piece, once."""
        if self._work is None:
            self._work = self._make()
        yield self._work(about)


class WorkActors(ActorGroup):
    """The actors of one command."""

    def __init__(self, run: CacheRunConfig, make: Callable[[], Work]) -> None:
        super().__init__(run)
        self._make = make

    def _start(self, options: dict[str, Any]) -> Any:
        return WorkActor.options(**options).remote(self._make, os.getcwd())


class PiecePool(JobPool[Piece, Shown]):
    """The pieces of one command."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        actors: WorkActors,
        num_actors: int,
        place: object,
        tell: Callable[[Any], object],
    ) -> None:
        super().__init__(pieces, actors, num_actors, place)
        self._tell = tell
        self.answers: dict[str, Any] = {}
        """Name of a piece -> what came of it."""

    def _begin(self, handle: Any, job: Piece) -> Any:
        return handle.do.options(num_returns="streaming").remote(job.about)

    def _note(self, _actor: int, job: Piece, event: Any) -> None:
        self.answers[job.name] = event
        self._tell(event)

    def _show(self, progress: Shown) -> None:
        for line in self._schedule.lines:
            progress.print(line)
        self._schedule.lines.clear()


class _Screen:
    """Lines of the schedule, for a person."""

    def print(self, line: str) -> None:
        say(line)


def spread(
    pieces: Sequence[tuple[str, Any]],
    make: Callable[[], Work],
    run: CacheRunConfig,
    *,
    place: object,
    tell: Callable[[Any], object],
) -> list[Any]:
    """Do all pieces (name, and what the work is given); returns what came of each, in their order.

    ``make``: a function of a module, with its arguments, that every node can import. ``place``: what is written to.
    ``tell`` hears what came of a piece when it is done.

    Raises:
        CorpusError: pieces failed for good; the others are done.
        CacheError: Ray cannot be started or joined, or is gone.
        DeviceError, ConfigError: no node has room for an actor.
        PeaError: an error that another try cannot mend.
    """
    jobs = [Piece(about, name, max_tries=run.max_tries) for name, about in pieces]
    with WorkActors(run, make) as actors:
        pool = PiecePool(jobs, actors, run.num_actors, place, tell)
        pool.run(_Screen())
    failed = [f"{job.name}: {job.error}" for job in jobs if job.error]
    if failed:
        raise CorpusError(
            f"{len(failed)} of {len(jobs)} parts failed",
            where=place,
            got=" | ".join(failed[:_NAMED]) + (" | ..." if len(failed) > _NAMED else ""),
            remedy="What is finished is kept; remove the cause and run the same command again.",
        )
    return [pool.answers[job.name] for job in jobs]
