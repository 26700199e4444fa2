"""How many actors a cluster has room for, and what is said where it has too little."""

from __future__ import annotations

import pytest

from pea.errors import ConfigError, DeviceError
from stages.cluster.capacity import Need, Node, fewer_places, no_place, num_places

GPU_NODE = {"CPU": 32.0, "GPU": 4.0, "memory": 1e11}
CPU_NODE = {"CPU": 16.0, "memory": 1e11}


@pytest.mark.parametrize(
    ("need", "nodes", "places"),
    [
        (Need(8, 1), [GPU_NODE], 4),
        (Need(16, 1), [GPU_NODE], 2),
        (Need(8, 1), [GPU_NODE, GPU_NODE, CPU_NODE], 8),
        (Need(8, 1), [CPU_NODE, CPU_NODE], 0),
        (Need(24, 0), [CPU_NODE, CPU_NODE], 0),  # 32 CPUs in all, but an actor runs on one node
        (Need(1, 0), [CPU_NODE], 10),
        (Need(0, 0), [CPU_NODE], 10),
        (Need(0.1, 0), [{"CPU": 0.3}], 3),
        (Need(0, 0.5), [GPU_NODE], 8),
        (Need(0, 0.6), [GPU_NODE], 4),
        (Need(0, 2), [GPU_NODE], 2),
        (Need(1, 0), [], 0),
    ],
)
def test_places(need: Need, nodes: list[Node], places: int) -> None:
    assert num_places(need, nodes, at_most=10) == places


def test_too_few_gpus_are_said() -> None:
    error = no_place(Need(8, 1), [CPU_NODE])
    assert isinstance(error, DeviceError)
    assert str(error) == (
        "cache.run.num_gpus_per_actor: no node of the Ray cluster has room for an actor; expected a node with 1 GPU and"
        " 8 CPUs; got no GPUs on the largest node. Lower it (0, with cache.run.device=cpu, needs no GPU), or join a"
        " cluster that has them."
    )
    assert isinstance(no_place(Need(8, 1), []), DeviceError)


def test_too_few_cpus_are_said() -> None:
    error = no_place(Need(64, 1), [GPU_NODE, {"CPU": 128.0}])
    assert isinstance(error, ConfigError)
    assert str(error) == (
        "cache.run.num_cpus_per_actor: no node of the Ray cluster has room for an actor; expected a node with 1 GPU and"
        " 64 CPUs; got at most 32 CPUs on a node with enough GPUs. Lower it, or join a cluster with larger nodes."
    )
    assert "at most 16 CPUs on a node." in str(no_place(Need(64, 0), [CPU_NODE]))


def test_fewer_actors_are_said() -> None:
    said = "the Ray cluster has room for 4 of 8 actors; each takes 1 GPU and 8 CPUs of a node (cache.run)"
    assert fewer_places(Need(8, 1), 8, 4) == said
    assert "no room for an actor any more: waiting" in fewer_places(Need(8, 1), 8, 0)
