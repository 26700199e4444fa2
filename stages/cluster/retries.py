"""What becomes of a tar whose worker fails: tried again, tried carefully, a sample quarantined, or given up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field

from pea.cache import PartPlan
from pea.collect.events import Task
from pea.corpus.texts import TextPart
from pea.storage import Location

MAX_QUARANTINED = 8
"""More samples of one tar than this do not end their process by their own fault."""

MAX_LOST = 10
"""So many lost nodes are bad luck; a tar that loses one more is thought to be the cause."""


@dataclass(eq=False, kw_only=True)
class Tried(ABC):
    """One tar, or part of a table, that something is to be done to, with the history of its failures."""

    max_tries: int
    tries: int = 0
    """Tries that failed since the last sample was quarantined."""
    careful: bool = False
    """Whether the next try works on one sample at a time."""
    error: str = ""
    """Why the last try failed; empty after a success."""
    quarantined: list[str] = field(default_factory=list)
    """Keys that ended their process too often."""
    key_in_flight: str = ""
    """What a careful try was about to work on when it was last heard of."""
    num_expected: int = 0
    num_done: int = 0
    """Samples of the current try."""
    num_lost: int = 0
    """Tries that ended with their node."""
    _deaths: Counter[str] = field(default_factory=Counter)

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in messages."""

    def start(self) -> None:
        """A new try begins."""
        self.num_done, self.error, self.key_in_flight = 0, "", ""

    def failed(self, error: str, *, final: bool = False, num_tries: int = 1) -> bool:
        """Note failures that left the process alive. Returns whether to try again."""
        self.error, self.tries = error, self.tries + num_tries
        return not final and self.tries < self.max_tries

    def died(self) -> bool:
        """Note the death of the worker's process. Returns whether to try again.

        After the first death the tar is worked on carefully, so that the key in flight is that of one sample. A sample
        that is named by all other tries is quarantined, and the count of tries starts again.
        """
        self.error, self.tries = "the worker process died", self.tries + 1
        key = self.key_in_flight if self.careful else ""
        self.careful = True
        if key:
            self.error = f"the worker process died at sample {key}"
            self._deaths[key] += 1
            if self._deaths[key] >= self.max_tries - 1 and len(self.quarantined) < MAX_QUARANTINED:
                self.quarantined.append(key)
                self.tries = 0
                return True
        return self.tries < self.max_tries

    def lost(self) -> bool:
        """Note that the worker's node is gone: nobody's fault, and no try. Returns whether to try again."""
        self.error, self.num_lost = "the worker's node is gone", self.num_lost + 1
        return self.num_lost <= MAX_LOST

    def finish(self) -> None:
        """The try succeeded."""
        self.error = ""


@dataclass(eq=False)
class Job(Tried):
    """One tar to be cached."""

    part: PartPlan
    tar: Location | TextPart

    @property
    def name(self) -> str:
        """Tar, and part unless it is the first."""
        return self.part.tar if self.part.part == "p000" else f"{self.part.tar}/{self.part.part}"

    @property
    def size_bytes(self) -> int:
        """To compare tars by, for an estimate; of texts, their number."""
        return self.tar.num_rows if isinstance(self.tar, TextPart) else self.tar.status().size_bytes

    def task(self) -> Task:
        """What the worker is told."""
        return Task(self.part, self.tar.resolve(), tuple(self.quarantined), self.careful)
