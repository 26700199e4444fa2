"""When an actor is asked for: on a cluster that is only told of, so that it may scale, shrink and grow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.state import state

from pea.config import Config
from pea.errors import DeviceError
from stages.cluster import pool
from stages.cluster.pool import Actors
from tests.stages.test_cache_teacher import with_workers


class Cluster:
    """What Ray would say of its nodes."""

    def __init__(self, *nodes: dict[str, float]) -> None:
        self.nodes, self.scales = list(nodes), False

    def alive(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": node} for node in self.nodes] + [{"Alive": False, "Resources": {}}]

    def total(self) -> dict[str, float]:
        return {name: sum(node.get(name, 0) for node in self.nodes) for name in ("CPU", "GPU")}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """One node with 4 GPUs."""
    cluster = Cluster({"CPU": 32.0, "GPU": 4.0})
    monkeypatch.setattr(pool, "_start_ray", lambda config: False)
    monkeypatch.setattr(pool, "_scales", lambda: cluster.scales)
    monkeypatch.setattr(ray, "nodes", cluster.alive)
    monkeypatch.setattr(ray, "cluster_resources", cluster.total)
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    monkeypatch.setattr(pool, "TeacherActor", FakeActor)
    return cluster


class FakeActor:
    """An actor that Ray has accepted."""

    @classmethod
    def options(cls, **_: float) -> type[FakeActor]:
        return cls

    @classmethod
    def remote(cls, *_: Any) -> FakeActor:
        return cls()


def take_all(actors: Actors, said: list[str]) -> int:
    """How many more actors there are room for."""
    number = 0
    while number < 8 and actors.has_one(said.append):
        actors.take()
        number += 1
    return number


def eight_actors(config: Config) -> Actors:
    return Actors(with_workers(config, num_actors=8, num_gpus_per_actor=1.0, num_cpus_per_actor=8.0))


def test_as_many_actors_as_fit_and_more_when_a_node_comes(fresh_run: Config, cluster: Cluster) -> None:
    actors, said = eight_actors(fresh_run), list[str]()
    assert take_all(actors, said) == 4 and len(said) == 1 and "room for 4 of 8 actors" in said[0]
    cluster.nodes.append({"CPU": 32.0, "GPU": 4.0})
    assert take_all(actors, said) == 4 and len(said) == 1


def test_an_idle_actor_is_always_there(fresh_run: Config, cluster: Cluster) -> None:
    with eight_actors(fresh_run) as actors:
        actors.give_back(actors.take())
        cluster.nodes.clear()
        assert actors.has_one(pytest.fail)


def test_a_cluster_without_room_is_refused_at_the_start_only(fresh_run: Config, cluster: Cluster) -> None:
    node = cluster.nodes.pop()
    actors, said = eight_actors(fresh_run), list[str]()
    with pytest.raises(DeviceError, match="num_gpus_per_actor"):
        actors.has_one(said.append)
    cluster.nodes.append(node)
    actor = actors.take()
    actors.discard(actor)
    cluster.nodes.clear()
    assert take_all(actors, said) == 1, "one waits for the node to come back"
    assert "no room for an actor any more: waiting" in said[-1]


def test_a_cluster_that_scales_is_left_to_do_so(fresh_run: Config, cluster: Cluster) -> None:
    cluster.nodes, cluster.scales = [], True
    assert take_all(eight_actors(fresh_run), []) == 8


@pytest.mark.parametrize(("min_count", "max_count", "scales"), [(0, -1, True), (1, 4, True), (2, 2, False)])
def test_a_cluster_says_how_far_it_scales(
    monkeypatch: pytest.MonkeyPatch, min_count: int, max_count: int, scales: bool
) -> None:
    group = SimpleNamespace(min_count=min_count, max_count=max_count)
    monkeypatch.setattr(state, "get_cluster_config", lambda: SimpleNamespace(node_group_configs=[group]))
    assert pool._scales() is scales


def test_a_local_ray_has_cpus_for_all_actors(fresh_run: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    pool._start_ray(with_workers(fresh_run, num_actors=1001, num_cpus_per_actor=0.5))
    assert asked["num_cpus"] == 501


@pytest.mark.parametrize("cache_root", [Path("shared/caches"), None])
def test_a_worker_elsewhere_finds_the_same_cache(
    fresh_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_root: Path | None
) -> None:
    monkeypatch.chdir(tmp_path)
    config = fresh_run.model_copy(update={"run_dir": Path("run"), "cache_root": cache_root})
    sent = pool._with_absolute_paths(config)
    assert sent.cache_dir("parallel") == tmp_path / config.cache_dir("parallel")
