"""Which nodes fail tars that others read; pure."""

from __future__ import annotations

from typing import NamedTuple

from pea.plurals import count_of
from stages.cluster.retries import Tried

NUM_STRIKES = 3
"""Tars in a row that a node failed and others read, until it is left out."""


class Node(NamedTuple):
    """A machine of the cluster."""

    id: str
    """Ray's id."""
    name: str
    """Name and address, for messages."""


class NodeTrust:
    """What is known of the nodes from the tars that failed and succeeded on them.

    A success clears a node of everything, so that a storage that stutters now and then never costs one.
    """

    def __init__(self) -> None:
        self._unjudged: dict[str, dict[Tried, str]] = {}
        """Node -> tars that failed there and nowhere else so far, with the reason."""
        self._strikes: dict[str, dict[Tried, str]] = {}
        """Node -> tars that failed there and that another node has read since."""
        self._succeeded: set[str] = set()
        self._names: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        """Nodes that get no more work, with their names."""

    def is_left_out(self, node: Node) -> bool:
        """Whether it is to get no work at all."""
        return node.id in self.left_out

    def is_suspected(self, node: Node) -> bool:
        """Whether it is to get nothing but tars that failed elsewhere, until others have tried those that it failed."""
        return len(self._unjudged.get(node.id, ())) + len(self._strikes.get(node.id, ())) >= NUM_STRIKES

    def is_credible(self, node_id: str) -> bool:
        """Whether no tar failed there that others have yet to try."""
        return not self._unjudged.get(node_id)

    def is_proven(self, node_id: str) -> bool:
        """Whether it is also known to have done a tar."""
        return node_id in self._succeeded and self.is_credible(node_id)

    def failed(self, node: Node, job: Tried, reason: str) -> None:
        """A tar failed on a node."""
        self._names[node.id] = node.name
        self._unjudged.setdefault(node.id, {})[job] = reason

    def finished(self, node: Node, job: Tried) -> list[str]:
        """A tar was done on a node; returns a line for each node that is left out from now on."""
        self._unjudged.pop(node.id, None)
        self._strikes.pop(node.id, None)
        self._succeeded.add(node.id)
        lines = []
        for other, failures in self._unjudged.items():
            if job not in failures:
                continue
            strikes = self._strikes.setdefault(other, {})
            strikes[job] = failures.pop(job)
            self._succeeded.discard(other)
            if len(strikes) >= NUM_STRIKES and other not in self.left_out:
                self.left_out[other] = self._names[other]
                lines.append(
                    f"node {self._names[other]} is left out: {count_of(len(strikes), 'tar')} failed there that "
                    f"other nodes read, the last one with: {strikes[job]}"
                )
        return lines

    def clear(self, job: Tried) -> None:
        """A tar failed wherever it was tried, or nobody knows: it says nothing of any node."""
        for failures in self._unjudged.values():
            failures.pop(job, None)
