"""When actors are asked for and let go: on a cluster that is only told of, so that it may scale, shrink and grow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.state import state
from ray.exceptions import ActorUnavailableError, RayActorError

from pea.config import Config
from pea.errors import CacheError, DeviceError
from pea.storage.processes import ProcessName, this_process
from stages.cluster import actors as module
from stages.cluster.actors import Actors, scales, with_absolute_paths
from stages.cluster.node_trust import Node
from tests.stages.test_cache_teacher import with_workers

NOBODY = frozenset[str]()


class Cluster:
    """What Ray would say of its nodes, and of actors that begin to run when they are told to."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, float]] = {"a": {"CPU": 32.0, "GPU": 4.0}}
        self.scales, self.answers = False, True
        self.asked: list[dict[str, Any]] = []
        self.killed = 0
        self.begun: dict[Any, str | Exception] = {}
        """Answer of an actor -> its node, or why it never runs."""

    def living(self, _: Any = None) -> list[dict[str, Any]] | None:
        names = {"NodeManagerHostname": "host", "NodeManagerAddress": "10.0.0.1"}
        nodes = [{"NodeID": name, "Resources": has, **names} for name, has in self.nodes.items()]
        return nodes if self.answers else None

    def kill(self, _: Any) -> None:
        self.killed += 1

    def wait(self, answers: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return [answer for answer in answers if answer in self.begun], []

    def get(self, answer: Any) -> tuple[str, ProcessName]:
        node = self.begun[answer]
        if isinstance(node, Exception):
            raise node
        return node, this_process()

    # What stands for the class TeacherActor.
    def options(self, **options: Any) -> Cluster:
        self.asked.append(options)
        return self

    def remote(self, *_: Any) -> Any:
        return SimpleNamespace(place=SimpleNamespace(remote=object))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """One node with 4 GPUs."""
    cluster = Cluster()
    monkeypatch.setattr(module.RaySession, "open", lambda _: None)
    monkeypatch.setattr(module.RaySession, "nodes", cluster.living)
    monkeypatch.setattr(module, "scales", lambda: cluster.scales)
    monkeypatch.setattr(module, "TeacherActor", cluster)
    for name in ("kill", "wait", "get"):
        monkeypatch.setattr(ray, name, getattr(cluster, name))
    return cluster


@pytest.fixture
def actors(fresh_run: Config) -> Actors:
    """Up to eight, with a GPU each."""
    return Actors(with_workers(fresh_run, num_actors=8, num_gpus_per_actor=1.0, num_cpus_per_actor=8.0))


def quietly(_: str) -> None:
    """Nobody listens."""


def begin(cluster: Cluster, actors: Actors, node: str = "a") -> list[int]:
    """All pending ones run."""
    cluster.begun |= dict.fromkeys(actors.awaited, node)
    return list(actors.arrived())


def test_as_many_as_fit_and_more_when_a_node_comes(cluster: Cluster, actors: Actors) -> None:
    said = list[str]()
    assert actors.ask_for(8, NOBODY, said.append) == {"a"}
    assert len(actors.awaited) == 4 and len(said) == 1 and "room for 4 of 8 actors" in said[0]
    cluster.nodes["b"] = {"CPU": 32.0, "GPU": 4.0}
    assert actors.ask_for(8, NOBODY, said.append) == {"a", "b"}
    assert len(actors.awaited) == 8 and len(said) == 1


def test_a_pending_actor_is_dropped_when_it_is_not_needed(cluster: Cluster, actors: Actors) -> None:
    actors.ask_for(4, NOBODY, quietly)
    assert begin(cluster, actors) == [0, 1, 2, 3]
    cluster.nodes["b"] = {"CPU": 32.0, "GPU": 4.0}
    actors.ask_for(6, NOBODY, quietly)
    assert len(actors.awaited) == 2
    actors.ask_for(5, NOBODY, quietly)
    assert len(actors.awaited) == 1 and cluster.killed == 1
    actors.ask_for(1, NOBODY, quietly)
    assert not actors.awaited and cluster.killed == 2, "those that run are left alone"
    assert set(actors.running) == {0, 1, 2, 3}


def test_an_actor_runs_when_it_has_answered(cluster: Cluster, actors: Actors) -> None:
    actors.ask_for(1, NOBODY, quietly)
    assert actors.arrived() == {} and actors.running == {}
    begin(cluster, actors)
    assert actors.running == {0: Node("a", "host (10.0.0.1, a)")}


def test_new_actors_avoid_what_they_are_told_to(cluster: Cluster, actors: Actors) -> None:
    cluster.nodes["b"] = {"CPU": 8.0, "GPU": 4.0}
    actors.ask_for(8, frozenset({"a"}), quietly)
    assert [options["label_selector"] for options in cluster.asked] == [{"ray.io/node-id": "!in(a)"}]
    assert len(actors.awaited) == 1, "b has room for one"
    actors.ask_for(8, NOBODY, quietly)
    assert "label_selector" not in cluster.asked[-1] and len(actors.awaited) == 5, "what was told before is forgotten"


def test_a_node_that_is_left_out_counts_as_no_room(cluster: Cluster, actors: Actors) -> None:
    actors.ask_for(8, NOBODY, quietly)
    begin(cluster, actors)
    actors.trust.left_out["a"] = "host"
    cluster.nodes["b"] = {"CPU": 8.0, "GPU": 4.0}
    actors.ask_for(8, frozenset({"a"}), quietly)
    assert len(actors.awaited) == 1


def test_a_cluster_without_room_is_refused_at_the_start_only(cluster: Cluster, actors: Actors) -> None:
    node, said = cluster.nodes.pop("a"), list[str]()
    with pytest.raises(DeviceError, match="num_gpus_per_actor"):
        actors.ask_for(8, NOBODY, said.append)
    cluster.nodes["a"] = node
    actors.ask_for(8, NOBODY, said.append)
    cluster.nodes.clear()
    assert actors.ask_for(8, NOBODY, said.append) == NOBODY and not actors.awaited
    assert "no room for an actor any more: waiting" in said[-1]


def test_a_cluster_that_scales_is_left_to_do_so(cluster: Cluster, actors: Actors) -> None:
    cluster.nodes, cluster.scales = {}, True
    actors.ask_for(8, NOBODY, pytest.fail)
    assert len(actors.awaited) == 8


def test_while_the_head_does_not_answer_all_stays_as_it_is(cluster: Cluster, actors: Actors) -> None:
    actors.ask_for(4, NOBODY, quietly)
    cluster.answers = False
    assert actors.ask_for(1, NOBODY, quietly) == {"a"}
    assert len(actors.awaited) == 4


def test_workers_that_cannot_start_end_the_run(
    cluster: Cluster, actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    missing = RayActorError("id", "died in its creation task\nModuleNotFoundError: No module named 'pea'", True)
    for _ in range(2):
        actors.ask_for(1, NOBODY, quietly)
        cluster.begun |= dict.fromkeys(actors.awaited, missing)
        assert actors.arrived() == {}
        actors.ask_for(1, NOBODY, quietly)
        assert not actors.awaited, "not at once again"
        now += 60.0
    actors.ask_for(1, NOBODY, quietly)
    cluster.begun |= dict.fromkeys(actors.awaited, missing)
    with pytest.raises(CacheError, match=r"the workers cannot start.*No module named 'pea'"):
        actors.arrived()


def test_a_node_that_goes_before_its_actor_runs_is_nothing(cluster: Cluster, actors: Actors) -> None:
    for _ in range(10):
        actors.ask_for(1, NOBODY, quietly)
        [answer] = actors.awaited
        cluster.begun[answer] = ActorUnavailableError("node gone", None)
        assert actors.arrived() == {}


@pytest.mark.parametrize(("min_count", "max_count", "does"), [(0, -1, True), (1, 4, True), (2, 2, False)])
def test_a_cluster_says_how_far_it_scales(
    monkeypatch: pytest.MonkeyPatch, min_count: int, max_count: int, does: bool
) -> None:
    group = SimpleNamespace(min_count=min_count, max_count=max_count)
    monkeypatch.setattr(state, "get_cluster_config", lambda: SimpleNamespace(node_group_configs=[group]))
    assert scales() is does


@pytest.mark.parametrize("cache_root", [Path("shared/caches"), None])
def test_a_worker_elsewhere_finds_the_same_cache(
    fresh_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_root: Path | None
) -> None:
    monkeypatch.chdir(tmp_path)
    config = fresh_run.model_copy(update={"run_dir": Path("run"), "cache_root": cache_root})
    sent = with_absolute_paths(config)
    assert sent.cache_dir("parallel") == tmp_path / config.cache_dir("parallel")
