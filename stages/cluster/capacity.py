"""How many actors of the caching stage the nodes of a Ray cluster have room for; pure.

A node is what it has in total, not what is free at the moment: what other jobs hold is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pea.errors import ConfigError, DeviceError, PeaError
from pea.plurals import count_of

Node = Mapping[str, float]
"""Ray's name of a resource -> how much of it the node has."""
_ROUNDING = 1e-6


class Need(NamedTuple):
    """What one actor takes of the node that it runs on."""

    num_cpus: float
    num_gpus: float

    def __str__(self) -> str:
        """For messages: "1 GPU and 8 CPUs"."""
        return f"{count_of(self.num_gpus, 'GPU')} and {count_of(self.num_cpus, 'CPU')}"


def num_places(need: Need, nodes: Sequence[Node], at_most: int) -> int:
    """How many actors the nodes have room for, up to a limit."""
    return min(at_most, sum(_places(need, node, at_most) for node in nodes))


def no_place(need: Need, nodes: Sequence[Node]) -> PeaError:
    """The error for a cluster of which no node has room for even one actor."""
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= need.num_gpus]
    what, expected = "no node of the Ray cluster has room for an actor", f"a node with {need}"
    if not with_gpus:
        most = max((node.get("GPU", 0) for node in nodes), default=0)
        return DeviceError(
            what,
            where="cache.run.num_gpus_per_actor",
            expected=expected,
            got=f"{count_of(most, 'GPU')} on the largest node",
            remedy="Lower it (0, with cache.run.device=cpu, needs no GPU), or join a cluster that has them.",
        )
    most = max(node.get("CPU", 0) for node in with_gpus)
    on_which = "a node with enough GPUs" if need.num_gpus else "a node"
    return ConfigError(
        what,
        where="cache.run.num_cpus_per_actor",
        expected=expected,
        got=f"at most {count_of(most, 'CPU')} on {on_which}",
        remedy="Lower it, or join a cluster with larger nodes.",
    )


def fewer_places(need: Need, num_actors: int, places: int) -> str:
    """The line for a cluster with room for fewer actors than were asked for."""
    held = f"has room for {places} of {num_actors} actors" if places else "has no room for an actor any more: waiting"
    return f"the Ray cluster {held}; each takes {need} of a node (cache.run)"


def _places(need: Need, node: Node, at_most: int) -> int:
    by_cpus, by_gpus = _whole(node.get("CPU", 0), need.num_cpus, at_most), at_most
    if need.num_gpus >= 1:
        by_gpus = _whole(node.get("GPU", 0), need.num_gpus, at_most)
    elif need.num_gpus:  # a share of a GPU is never spread over two
        by_gpus = int(node.get("GPU", 0)) * _whole(1, need.num_gpus, at_most)
    return min(by_cpus, by_gpus)


def _whole(there: float, each: float, at_most: int) -> int:
    return int(there / each + _ROUNDING) if each else at_most
