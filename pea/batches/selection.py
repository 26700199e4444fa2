"""Which rows of a cache are read: a held-out share of the samples, or the others, and records of which timesteps."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pea.cache import Bucket, Cache
from pea.corpus.tars import sample_id


@dataclass(frozen=True)
class Selection:
    """A rule by which rows are kept; the default keeps all."""

    held_out_fraction: float = 0.0
    """Share of the samples that is held out for validation: by their ids, the same in every run."""
    held_out: bool = False
    """Keep the held-out samples, not the others."""
    timesteps: tuple[int, int] | None = None
    """Keep records of the timesteps `first <= t < end`. Says nothing about a culture cache, whose timesteps are drawn
    afresh."""
    languages: tuple[str, ...] = ()
    """Keep samples with a caption in one of these languages; empty: whatever they have."""

    def rows(self, bucket: Bucket, tar: str, first: int = 0, stop: int | None = None) -> npt.NDArray[np.int64] | None:
        """Kept rows of the samples `first..stop` of a bucket; None: all of them.

        Rows are records, or samples of a culture cache, counted from that of sample `first`: ascending int64.
        """
        keys, draws = bucket.keys[first:stop], bucket.draws_per_sample
        kept = np.ones(len(keys), dtype=np.bool_)
        if self.held_out_fraction:
            kept = is_held_out([sample_id(tar, key) for key in keys], self.held_out_fraction) == self.held_out
        if self.languages:
            columns = [bucket.captions(language)[first:stop] for language in self.languages]
            kept = kept & np.array([any(texts) for texts in zip(*columns, strict=True)], dtype=np.bool_)
        kept = kept.repeat(max(1, draws))
        if self.timesteps and draws:
            timesteps = bucket.read(["timestep"], first * draws, (first + len(keys)) * draws)["timestep"]
            kept = kept & (timesteps >= self.timesteps[0]) & (timesteps < self.timesteps[1])
        return None if kept.all() else np.flatnonzero(kept)

    def unless_all(self) -> Selection | None:
        """Itself, or None where it keeps every row."""
        return None if self == Selection() else self

    def keeps_any(self, cache: Cache) -> bool:
        """Whether a cache has rows that are kept."""
        chosen = (self.rows(bucket, shard.tar) for shard in cache.shards for bucket in shard.buckets.values())
        return any(rows is None or len(rows) for rows in chosen)


def is_held_out(sample_ids: Sequence[str], fraction: float) -> npt.NDArray[np.bool_]:
    """Whether each of n samples belongs to the held-out share: bool [n]."""
    numbers = np.array([zlib.crc32(f"validation\0{name}".encode()) for name in sample_ids], dtype=np.uint64)
    held_out: npt.NDArray[np.bool_] = numbers < np.uint64(round(fraction * 2**32))
    return held_out
