"""Which tar goes to which actor, and what a failure says of the tar or of the node; pure.

The schedule is told what happened and asked what to do next. Only an actor that runs is given a tar, so whatever is
still waiting for a place owns nothing. A tar that failed on one node is tried on another one before that counts: a node
without the disk fails every tar that it touches, and takes them faster than its neighbours.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pea.errors import CorpusError, PeaError, StorageError
from stages.cluster.node_trust import Node, NodeTrust
from stages.cluster.retries import Tried

OTHER_NODE_PATIENCE_S = 60.0
"""For how long a tar that failed on one node waits until an actor runs on another."""
MOST_NODES = 8
"""A tar that failed on so many nodes is bad; on two, if one of them had done other tars."""
POSTPONED_S = 5.0
"""After which a tar that another run is busy with is looked at again."""


class Assignment(NamedTuple):
    """A tar for an actor."""

    actor: int
    job: Tried


@dataclass
class _Deferred:
    """A job that failed on some nodes and is to be tried on another."""

    job: Tried
    since: float
    nodes: set[str] = field(default_factory=set)
    """Where it failed."""
    on_proven: bool = False
    """Whether one of them had done other tars."""
    errors: list[Exception] = field(default_factory=list)
    """Why, where that has not been counted."""


class Schedule:
    """The jobs of one corpus and the actors that run."""

    def __init__(
        self, jobs: Iterable[Tried], num_actors: int, trust: NodeTrust, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``trust``: what is known of the nodes; it outlives the schedule."""
        self._fresh = deque(jobs)
        self._deferred: dict[Tried, _Deferred] = {}
        self._postponed: dict[Tried, float] = {}
        """Job -> when to look at it again."""
        self._known_elsewhere: set[Tried] = set()
        self._idle: dict[int, Node] = {}
        self._busy: dict[int, tuple[Node, Tried]] = {}
        self._num_actors, self._trust, self._clock = num_actors, trust, clock
        self._nodes: frozenset[str] = frozenset()
        self.lines: list[str] = []
        """What a person should know; whoever shows it clears it."""

    @property
    def is_done(self) -> bool:
        """Whether every job has succeeded or been given up."""
        return not (self._fresh or self._deferred or self._postponed or self._busy)

    @property
    def num_useful(self) -> int:
        """So many actors would have something to do."""
        return min(self._num_actors, len(self.open_jobs))

    @property
    def open_jobs(self) -> set[Tried]:
        """Those that have neither succeeded nor been given up."""
        return {*self._fresh, *self._deferred, *self._postponed, *(job for _, job in self._busy.values())}

    @property
    def num_running(self) -> int:
        """Actors that can be counted on: busy, or idle where they may work."""
        return len(self._busy) + sum(not self._trust.is_left_out(node) for node in self._idle.values())

    def see_nodes(self, ids: Iterable[str]) -> None:
        """The living nodes with room for an actor, whether or not one runs there."""
        self._nodes = frozenset(ids)

    def add(self, actor: int, node: Node) -> None:
        """An actor runs and has nothing to do."""
        self._idle[actor] = node

    def remove(self, actor: int) -> None:
        """An idle actor is no more."""
        self._idle.pop(actor, None)

    def next(self) -> Assignment | None:
        """A tar for an idle actor, until there is none left for any.

        Raises:
            PeaError: a tar failed wherever it could be tried, for a reason that another try cannot mend.
        """
        self._count_those_without_another_node()
        for actor, node in self._idle.items():
            job = self._job_for(node)
            if job is not None:
                del self._idle[actor]
                self._busy[actor] = (node, job)
                job.start()
                return Assignment(actor, job)
        return None

    def finished(self, actor: int) -> None:
        """It has done its job, and is idle."""
        node, job = self._busy.pop(actor)
        self._idle[actor] = node
        job.finish()
        self._deferred.pop(job, None)
        self.lines += self._trust.finished(node, job)

    def done_by_another(self, actor: int) -> None:
        """Another run has done its job; that says nothing of the node."""
        node, job = self._busy.pop(actor)
        self._idle[actor] = node
        job.finish()
        self._forget(job)

    def postpone(self, actor: int, owner: str) -> None:
        """Another run is busy with its job. ``owner``: who."""
        node, job = self._busy.pop(actor)
        self._idle[actor] = node
        if job not in self._known_elsewhere:
            self._known_elsewhere.add(job)
            self.lines.append(f"{job.name}: another run is working on it ({owner}); looked at again later")
        self._postponed[job] = self._clock() + POSTPONED_S

    def failed(self, actor: int, error: Exception, reason: str) -> None:
        """Its job failed, and it is idle. ``reason``: the error in one line.

        Raises:
            PeaError: as ``next``.
        """
        node, job = self._busy.pop(actor)
        self._idle[actor] = node
        job.error = reason
        self._defer(job, node, reason).errors.append(error)
        if self._other_nodes(job):
            self.lines.append(f"{job.name}: failed on {node.name}: {reason}; trying another node")
        else:
            self._count(job)

    def died(self, actor: int) -> None:
        """Its process died with its job."""
        node, job = self._busy.pop(actor)
        again = job.died()
        if again and not job.tries:  # a sample is to blame
            self._forget(job)
            self._fresh.append(job)
        elif again:
            self._defer(job, node, job.error)
            if not self._other_nodes(job):
                self._count(job, say=False)
        else:
            self._forget(job)
        self._say(job, again)

    def lost(self, actor: int) -> None:
        """Its node is gone, and its job with it."""
        _, job = self._busy.pop(actor)
        again = job.lost()
        if again and job not in self._deferred:
            self._fresh.appendleft(job)
        elif not again:
            self._forget(job)
        self._say(job, again)

    def avoid(self) -> frozenset[str]:
        """Nodes on which a new actor would be of no use: left out, or where the tar that needs it has failed."""
        return self._trust.left_out.keys() | self._needed_elsewhere()

    def dispensable(self) -> list[int]:
        """Idle actors that only take a place: on a node that is left out, or where another node is needed."""
        found = [actor for actor, node in self._idle.items() if self._trust.is_left_out(node)]
        if not found and self._needed_elsewhere() and self._idle and self.num_running >= self.num_useful:
            found = [next(iter(self._idle))]
        return found

    def _needed_elsewhere(self) -> frozenset[str]:
        """Where the first deferred job failed, if none of our actors runs anywhere else."""
        for job, deferred in self._deferred.items():
            if not self._is_running(job) and not self._somebody_elsewhere(job) and self._other_nodes(job):
                return frozenset(deferred.nodes)
        return frozenset()

    def _job_for(self, node: Node) -> Tried | None:
        if self._trust.is_left_out(node):
            return None
        for job in self._deferred:
            if node.id in self._judges(job) and not self._is_running(job) and job not in self._postponed:
                return job
        if self._trust.is_suspected(node):
            return None
        if self._fresh:
            return self._fresh.popleft()
        for job, at in self._postponed.items():
            if at <= self._clock() and (job not in self._deferred or node.id not in self._deferred[job].nodes):
                del self._postponed[job]
                return job
        return None

    def _is_running(self, job: Tried) -> bool:
        return any(running is job for _, running in self._busy.values())

    def _defer(self, job: Tried, node: Node, reason: str) -> _Deferred:
        deferred = self._deferred.setdefault(job, _Deferred(job, self._clock()))
        deferred.nodes.add(node.id)
        deferred.on_proven |= self._trust.is_proven(node.id)
        deferred.since = self._clock()
        self._trust.failed(node, job, reason)
        return deferred

    def _other_nodes(self, job: Tried) -> frozenset[str]:
        """Where a job that failed may still be tried."""
        failed_on = self._deferred[job].nodes
        enough = 2 if self._deferred[job].on_proven else MOST_NODES
        if len(failed_on) >= enough:
            return frozenset()
        ours = {node.id for node in self._idle.values()} | {node.id for node, _ in self._busy.values()}
        return (self._nodes | ours) - failed_on - self._trust.left_out.keys()

    def _judges(self, job: Tried) -> frozenset[str]:
        """The other nodes whose word counts most: those that have done tars, then those that have not failed any."""
        others = self._other_nodes(job)
        for is_better in (self._trust.is_proven, self._trust.is_credible):
            if better := frozenset(filter(is_better, others)):
                return better
        return others

    def _somebody_elsewhere(self, job: Tried) -> bool:
        judges = self._judges(job)
        return any(node.id in judges for node in [*self._idle.values(), *(node for node, _ in self._busy.values())])

    def _count_those_without_another_node(self) -> None:
        for job, deferred in list(self._deferred.items()):
            if self._is_running(job) or self._somebody_elsewhere(job):
                deferred.since = self._clock()
            elif not self._other_nodes(job) or self._clock() - deferred.since > OTHER_NODE_PATIENCE_S:
                self._count(job)

    def _count(self, job: Tried, *, say: bool = True) -> None:
        """A job has failed wherever it could be tried: so it is the tar, and not the nodes."""
        errors = self._deferred[job].errors
        self._forget(job)
        again = True
        if errors:
            if isinstance(errors[-1], PeaError) and not isinstance(errors[-1], CorpusError | StorageError):
                raise errors[-1]
            again = job.failed(job.error, final=isinstance(errors[-1], CorpusError), num_tries=len(errors))
            if say:
                self._say(job, again)
        if again:
            self._fresh.append(job)

    def _forget(self, job: Tried) -> None:
        self._deferred.pop(job, None)
        self._postponed.pop(job, None)
        self._trust.clear(job)

    def _say(self, job: Tried, again: bool) -> None:
        self.lines.append(f"{job.name}: {job.error}; {'trying again' if again else 'given up'}")
