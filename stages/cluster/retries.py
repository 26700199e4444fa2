"""What becomes of a tar whose worker fails: tried again, tried carefully, a sample quarantined, or given up."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pea.cache import PartPlan
from pea.collect.events import Task
from pea.storage import Location

MAX_QUARANTINED = 8
"""More samples of one tar than this do not end their process by their own fault."""

LOCK_PATIENCE_S = 60.0
"""A worker whose driver or node was killed holds its shard's lock until it notices."""


@dataclass
class Job:
    """One tar to be cached, with the history of its failures."""

    part: PartPlan
    tar: Location
    journal: Path
    """File in which the worker notes the key that it works on."""
    max_tries: int
    tries: int = 0
    """Tries that failed since the last sample was quarantined."""
    careful: bool = False
    """Whether the next try works on one sample at a time."""
    error: str = ""
    """Why the last try failed; empty after a success."""
    quarantined: list[str] = field(default_factory=list)
    """Keys that ended their process too often."""
    num_expected: int = 0
    num_done: int = 0
    """Samples of the current try."""
    _deaths: Counter[str] = field(default_factory=Counter)
    _locked_since: float | None = None

    @property
    def name(self) -> str:
        """Tar, and part unless it is the first."""
        return self.part.tar if self.part.part == "p000" else f"{self.part.tar}/{self.part.part}"

    def task(self) -> Task:
        """What the worker is told."""
        return Task(self.part, self.tar.resolve(), tuple(self.quarantined), self.careful)

    def start(self) -> None:
        """A new try begins."""
        self.num_done, self.error = 0, ""
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        self.journal.unlink(missing_ok=True)

    def failed(self, error: str, *, final: bool = False) -> bool:
        """Note a failure that left the process alive. Returns whether to try again."""
        self.error, self.tries = error, self.tries + 1
        return not final and self.tries < self.max_tries

    def locked(self) -> bool:
        """Note that another writer holds the shard; that is no try. Returns whether to wait for it."""
        now = time.monotonic()
        if self._locked_since is None:
            self._locked_since = now
        return now - self._locked_since < LOCK_PATIENCE_S

    def died(self, *, blame_sample: bool = True) -> bool:
        """Note the death of the worker's process. Returns whether to try again.

        After the first death the tar is worked on carefully, so that the journal names one sample. A sample that is
        named by all other tries is quarantined, and the count of tries starts again.
        """
        self.error, self.tries = "the worker process died", self.tries + 1
        key = self._key_in_flight() if self.careful and blame_sample else ""
        self.careful = self.careful or blame_sample
        if key:
            self.error = f"the worker process died at sample {key}"
            self._deaths[key] += 1
            if self._deaths[key] >= self.max_tries - 1 and len(self.quarantined) < MAX_QUARANTINED:
                self.quarantined.append(key)
                self.tries = 0
                return True
        return self.tries < self.max_tries

    def finish(self) -> None:
        """The try succeeded."""
        self.error = ""
        self.journal.unlink(missing_ok=True)

    def _key_in_flight(self) -> str:
        try:
            return self.journal.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""
