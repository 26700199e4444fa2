"""Which rows of a cache are read: a held-out share of the samples, or the others, and records of which timesteps."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pea.cache import Bucket, Cache
from pea.cache.schema import NOISE_ERRORS
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

    min_description_gain: float | None = None
    """Keep described culture images whose description lowers the teacher's own noise error by this share at least;
    None: all. Says nothing about images that have captions."""

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
        if self.min_description_gain is not None and NOISE_ERRORS in bucket.arrays:
            kept = kept & (description_gains(bucket, first, first + len(keys)) >= self.min_description_gain)
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


def description_gains(bucket: Bucket, first: int, stop: int) -> npt.NDArray[np.float64]:
    """By what share a description lowers the teacher's noise error, float64 `[n]`, for samples `first..stop`.

    Draws whose caption is dropped say nothing; a sample with no other draw gains 0.
    """
    draws = bucket.draws_per_sample
    read = bucket.read([NOISE_ERRORS, "caption_dropped"], first * draws, stop * draws)
    errors = read[NOISE_ERRORS].astype(np.float64) * ~read["caption_dropped"][:, None]
    described, empty = errors.reshape(stop - first, draws, 2).sum(1).T
    gains: npt.NDArray[np.float64] = np.where(empty > 0, 1 - described / np.where(empty > 0, empty, 1), 0.0)
    return gains


def is_held_out(sample_ids: Sequence[str], fraction: float) -> npt.NDArray[np.bool_]:
    """Whether each of n samples belongs to the held-out share: bool [n]."""
    numbers = np.array([zlib.crc32(f"validation\0{name}".encode()) for name in sample_ids], dtype=np.uint64)
    held_out: npt.NDArray[np.bool_] = numbers < np.uint64(round(fraction * 2**32))
    return held_out
