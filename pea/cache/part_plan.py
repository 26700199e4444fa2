"""Parts, the units of work: what one part of one tar holds, and what identifies that.

A *part* of a tar covers a range of draws, a set of blocks, and attention queries or none. A new cache has one part per
tar. Extending adds parts and touches none: new tars come whole, new draws bring everything but what is kept once per
sample, new blocks bring the features of the old draws, and queries bring those of the old draws and the text states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pea.cache.identity import Identity
from pea.cache.schema import ArraySpec, block_of, is_of_queries
from pea.storage.digests import sha256_text
from pea.storage.location import Location

PartKind = Literal["whole", "draws", "blocks", "queries"]


@dataclass(frozen=True)
class PartPlan:
    """One unit of work: what one part of one tar holds."""

    tar: str
    """Name of the tar."""
    part: str
    """Name of the part: ``p000``, ..."""
    kind: PartKind
    """``whole``: everything. ``draws``: no sample-level arrays. ``blocks``: features only. ``queries``: those and the
    text states only."""
    draw_start: int
    """First draw."""
    draw_stop: int
    """One after the last draw."""
    blocks: tuple[str, ...]
    """Blocks whose features it holds."""
    before_queries: bool = False
    """Whether queries were added to the cache after this part was planned: then it has none, and its content is what
    it was before."""

    @property
    def num_draws(self) -> int:
        """Draws per sample in this part."""
        return self.draw_stop - self.draw_start

    @property
    def may_hold_queries(self) -> bool:
        """Whether it stores queries where the cache keeps any."""
        return self.kind != "blocks" and not self.before_queries

    def holds(self, array: str, level: str) -> bool:
        """Whether this part stores an array of that name and level."""
        block = block_of(array)
        if block is not None:
            return block in self.blocks
        if is_of_queries(array):
            return self.may_hold_queries and (self.kind != "draws" or level == "record")
        return self.kind == "whole" or (self.kind == "draws" and level == "record")

    def select(self, arrays: Sequence[ArraySpec]) -> tuple[ArraySpec, ...]:
        """Those arrays that this part stores."""
        return tuple(spec for spec in arrays if self.holds(spec.name, spec.level))


class PartPlace(NamedTuple):
    """A part and where its completion record is."""

    plan: PartPlan
    record: Location


def part_digest(identity: Identity, plan: PartPlan) -> str:
    """What one part of one tar was made from: unchanged when the cache is extended by others."""
    source = identity.tars_by_name[plan.tar]
    core = identity.core_digest_before_queries if plan.before_queries else identity.core_digest
    file = (source.name, source.size_bytes, source.sha256)
    captions = () if source.captions is None else (source.captions,)
    words = (core, *file, plan.draw_start, plan.draw_stop, identity.sketches_digest(plan.blocks), *captions)
    return sha256_text("\0".join(map(str, words)))
