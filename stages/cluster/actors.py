"""Ray: the actors of a run; asked for, waited for, and let go."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from itertools import count
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import RayActorError, RayError

from pea.config import Config
from pea.config.cache import CacheRunConfig
from pea.errors import CacheError
from pea.storage.processes import ProcessName
from stages.cluster.capacity import Need, fewer_places, no_place, num_places
from stages.cluster.node_trust import Node, NodeTrust
from stages.cluster.session import RaySession, first_line
from stages.cluster.teacher_actor import TeacherActor

_MAX_FAILED_STARTS = 3
_LONGEST_PAUSE_S = 60.0
_GONE = ("its node has died", "its node was", "unavailable")
_NODE_ID = "ray.io/node-id"


class _Pending(NamedTuple):
    """An actor that Ray has accepted and that may not have a place yet."""

    number: int
    handle: Any
    avoid: frozenset[str]


class ActorGroup(ABC):
    """The actors of a run.

    No more of them are asked for than the cluster's nodes have room for. A cluster that tells Ray how far it scales (as
    KubeRay's does) is left to make the places; of any other, nodes that come or go are noticed, but a run that starts
    without a node for even one actor is refused.
    """

    def __init__(self, run: CacheRunConfig) -> None:
        """``run``: how many there are to be, what each takes of a node, and where."""
        self.session = RaySession(run)
        self.trust = NodeTrust()
        self.processes: set[ProcessName] = set()
        """Those of all actors so far, the dead ones too."""
        self._run = run
        self._numbers = count()
        self._pending: dict[Any, _Pending] = {}
        """Answer that comes when it runs -> actor."""
        self._running: dict[int, tuple[Any, Node]] = {}
        self._failed_starts = 0
        self._ask_again_at = 0.0
        self._names: dict[str, str] = {}
        self._roomy: frozenset[str] = frozenset()
        self._scales: bool | None = None
        self._had_room = False
        self._places_said = run.num_actors

    @abstractmethod
    def _start(self, options: dict[str, Any]) -> Any:
        """Ask Ray for another actor, which has a method ``place``; its handle. ``options``: what it needs."""

    @property
    def running(self) -> dict[int, Node]:
        """The actors that run, by number, with their nodes."""
        return {number: node for number, (_, node) in self._running.items()}

    @property
    def awaited(self) -> list[Any]:
        """Ray's references to wait for: each is there when another actor runs, or never will."""
        return list(self._pending)

    def handle(self, number: int) -> Any:
        """Ray's handle of an actor that runs."""
        return self._running[number][0]

    def arrived(self) -> dict[int, Node]:
        """Those that have begun to run since it was asked last.

        Raises:
            CacheError: none runs, and several in a row could not start.
        """
        found = {}
        done = ray.wait(self.awaited, num_returns=len(self._pending), timeout=0)[0] if self._pending else []
        for answer in done:
            pending = self._pending.pop(answer)
            try:
                node_id, process = ray.get(answer)
            except RayError as error:
                ray.kill(pending.handle)
                self._note_failed_start(error)
                continue
            self._failed_starts = 0
            self.processes.add(process)
            found[pending.number] = Node(node_id, self._names.get(node_id, node_id))
            self._running[pending.number] = (pending.handle, found[pending.number])
        return found

    def ask_for(self, number: int, avoid: frozenset[str], say: Callable[[str], None]) -> frozenset[str]:
        """Have so many running or pending, as far as there is room; pending ones beyond that are dropped.

        ``avoid``: nodes that new ones are not to run on. ``say`` is told when fewer fit than are asked for. Returns the
        ids of the nodes that have room for an actor, whether or not it is free at the moment.

        Raises:
            DeviceError, ConfigError: the cluster has no room for even one actor, and never had.
            CacheError: Ray cannot be started or joined, or is gone.
        """
        self.session.open()
        alive = self.session.nodes()
        if alive is None:
            return self._roomy
        self._names = {node["NodeID"]: _name_of(node) for node in alive}
        nodes = {node["NodeID"]: node["Resources"] for node in alive}
        need = self._need(nodes.values())
        self._roomy = frozenset(name for name, resources in nodes.items() if num_places(need, [resources], 1))
        for answer, pending in list(self._pending.items()):
            if avoid != pending.avoid:
                self._drop_pending(answer)
        if self._scales is None:
            self._scales = scales()
        wanted = number if self._scales else min(number, self._places(need, nodes, avoid, number, say))
        missing = wanted - len([node for node in self.running.values() if node.id not in self.trust.left_out])
        for answer in list(self._pending)[max(0, missing) :]:
            self._drop_pending(answer)
        if time.monotonic() >= self._ask_again_at:
            for _ in range(missing - len(self._pending)):
                self._ask(need, avoid)
        return self._roomy

    def drop(self, number: int) -> None:
        """It has died, is not to be trusted, or is of no use any more."""
        handle, _ = self._running.pop(number)
        ray.kill(handle)

    def drop_all_pending(self) -> None:
        """Nothing is left for them to do."""
        for answer in list(self._pending):
            self._drop_pending(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if ray.is_initialized():
            self.drop_all_pending()
            for number in list(self._running):
                self.drop(number)
        self.session.close()

    def _places(
        self,
        need: Need,
        nodes: dict[str, dict[str, float]],
        avoid: Collection[str],
        number: int,
        say: Callable[[str], None],
    ) -> int:
        """How many actors can run at once: those that do, and new ones on nodes that are not to be avoided."""
        asked = self._run.num_actors
        places = num_places(need, [node for name, node in nodes.items() if name not in self.trust.left_out], asked)
        if not places and not self._had_room:
            raise no_place(need, list(nodes.values()))
        self._had_room = True
        if places < asked and places != self._places_said:
            say(fewer_places(need, asked, places))
        self._places_said = places
        elsewhere = num_places(need, [node for name, node in nodes.items() if name not in avoid], number)
        there = sum(node.id in avoid and node.id not in self.trust.left_out for node in self.running.values())
        return min(number, places, there + elsewhere)

    def _need(self, nodes: Iterable[dict[str, float]]) -> Need:
        run = self._run
        num_gpus = run.num_gpus_per_actor
        if not num_gpus and run.device in ("auto", "cuda") and any(node.get("GPU") for node in nodes):
            num_gpus = 1.0
        return Need(run.num_cpus_per_actor, num_gpus)

    def _ask(self, need: Need, avoid: frozenset[str]) -> None:
        options: dict[str, Any] = need._asdict()
        if avoid:
            options["label_selector"] = {_NODE_ID: f"!in({','.join(sorted(avoid))})"}
        actor = self._start(options)
        self._pending[actor.place.remote()] = _Pending(next(self._numbers), actor, avoid)

    def _drop_pending(self, answer: Any) -> None:
        ray.kill(self._pending.pop(answer).handle)

    def _note_failed_start(self, error: RayError) -> None:
        """A node that goes before its actor has started is nothing to count."""
        if isinstance(error, RayActorError) and any(word in str(error) for word in _GONE):
            return
        self._failed_starts += 1
        self._ask_again_at = time.monotonic() + min(_LONGEST_PAUSE_S, 2.0**self._failed_starts)
        if self._failed_starts >= _MAX_FAILED_STARTS and not self._running:
            cause = str(error).strip().splitlines()[-1]
            raise CacheError(
                "the workers cannot start",
                where="Ray",
                got=f"{first_line(error)} {cause}",
                remedy="Each node needs the same environment as this command, with this project in it.",
            ) from error


class Actors(ActorGroup):
    """The actors that hold the frozen models, over all corpora of a run."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.cache.run)
        self._config = with_absolute_paths(config)

    def _start(self, options: dict[str, Any]) -> Any:
        num_threads = max(1, int(self._config.cache.run.num_cpus_per_actor))
        return TeacherActor.options(**options).remote(self._config.model_dump_json(), num_threads)


def scales() -> bool:
    """Whether the cluster has told Ray that it adds nodes when they are asked for; Ray Data asks it in the same way."""
    try:
        from ray._private.state import state

        cluster = state.get_cluster_config()
    except (ImportError, AttributeError, RayError):  # not a public name; and a Ray client cannot ask
        return False
    groups = cluster.node_group_configs if cluster else ()
    return any(group.max_count == -1 or group.max_count > group.min_count for group in groups)


def _name_of(node: dict[str, Any]) -> str:
    """What people call a node."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def with_absolute_paths(config: Config) -> Config:
    """A worker may have another working directory."""
    teacher = config.teacher.absolute()
    cache_root = config.cache_root.resolve() if config.cache_root else None
    changes = {"teacher": teacher, "run_dir": config.run_dir.resolve(), "cache_root": cache_root}
    return config.model_copy(update=changes | {"corpora": config.corpora.absolute()})
