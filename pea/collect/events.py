"""What is asked of a worker, and what it tells while it turns a tar into a shard. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pea.cache.part_plan import PartPlan
from pea.corpus.tars import Place
from pea.corpus.texts import TextPart


@dataclass(frozen=True)
class Started:
    """The first event of a tar."""

    num_expected: int
    """About as many samples."""


@dataclass(frozen=True)
class Done:
    """A batch is finished."""

    num_samples: int
    """Samples kept or dropped since the last event."""


@dataclass
class Finished:
    """The last event of a tar: its part of the shard is complete."""

    num_samples: int = 0
    """Samples kept."""
    num_bytes: int = 0
    """Size of the shard's files."""
    seconds: float = 0.0
    """Wall-clock time."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Time by kind of work; they overlap."""


ProgressEvent = Started | Done | Finished


@dataclass(frozen=True)
class Task:
    """One tar to be collected."""

    part: PartPlan
    tar: Place | TextPart
    skip: Collection[str] = ()
    """Keys that are rejected unread, because they ended their process before."""
    careful: bool = False
    """Work on one sample at a time before each batch, so that ``in_flight`` knows which one ends the process."""
