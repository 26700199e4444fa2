"""Several caches that were made with the same models, read as one."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pea.cache.identity import Identity
from pea.cache.part_plan import PartPlan
from pea.cache.reader import Cache

if TYPE_CHECKING:
    from pea.cache.shard import Shard


class JoinedCache(Cache):
    """The samples of one cache, and after them those of others. Nothing can be added to it."""

    def __init__(self, first: Cache, *others: Cache) -> None:
        super().__init__(first.directory, first.manifest)
        self.caption_tables = first.caption_tables
        self._joined = (first, *others)

    @property
    def identity(self) -> Identity:
        """That of the first, with the digests of the others."""
        first, *others = (cache.identity for cache in self._joined)
        return Identity({**first.fields, "joined": [each.digest for each in others]}, first.means_same)

    @cached_property
    def shards(self) -> list[Shard]:
        """The complete shards of all."""
        return [shard for cache in self._joined for shard in cache.shards]

    def part_digest(self, plan: PartPlan) -> str:
        """What identifies the content of a part of the first."""
        return self._joined[0].part_digest(plan)

    def removed(self) -> frozenset[str]:
        """What was taken down from any of them."""
        return frozenset().union(*(cache.removed() for cache in self._joined))
