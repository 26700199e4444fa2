"""A cache cut into pieces that are read together, without what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from sys import intern
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pea.batches.selection import Selection
from pea.cache import Bucket

if TYPE_CHECKING:
    from pea.cache.shard import Shard


class Piece(NamedTuple):
    """Consecutive samples of one bucket of one shard, with all their draws."""

    shard: Shard
    name: str
    """Of the bucket."""
    first: int
    stop: int
    num_rows: int
    """Rows that are kept: records, or samples of a culture cache."""

    @property
    def tar(self) -> str:
        """Name of the tar that it is of."""
        return self.shard.tar

    @property
    def bucket(self) -> Bucket:
        """The bucket, opened."""
        return self.shard.buckets[self.name]


def cut(shard: Shard, name: str, step: int, selection: Selection | None) -> Iterator[Piece]:
    """A bucket of a shard in pieces of `step` samples, each with the number of its kept rows."""
    bucket, name = shard.buckets[name], intern(name)  # one name for all pieces
    draws = max(1, bucket.draws_per_sample)
    kept = selection.rows(bucket, shard.tar) if selection else None
    for first in range(0, bucket.num_samples, step):
        stop = min(first + step, bucket.num_samples)
        num_rows = (stop - first) * draws
        if kept is not None:
            low, high = np.searchsorted(kept, (first * draws, stop * draws))
            num_rows = int(high - low)
        yield Piece(shard, name, first, stop, num_rows)
