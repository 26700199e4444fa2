"""Samples on their way through the frozen models: before, as pixels or drawn latents, and after, as rows of a cache.

Shapes: S samples of a batch, K draws, c,h,w latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pea.collect.stored_rows import Arrays, Mask
from pea.config import CacheConfig
from pea.corpus.samples import Placed, Rejected, Sample, place_in_bucket
from pea.draws.recipe import crop_words


class DrawnText(NamedTuple):
    """What the teacher drew of a text."""

    latents: npt.NDArray[np.float32]
    """In the UNet's scale, float32 ``[c, h, w]``."""
    states: npt.NDArray[np.float32] | None
    """Of a trajectory: where the part's draws are asked, float32 ``[K, c, h, w]``."""


@dataclass(frozen=True)
class Decoded:
    """A sample that is ready for the models."""

    tar: str
    key: str
    sample_id: str
    captions: dict[str, str]
    placed: Placed
    """Without pixels where the teacher drew it."""
    drawn: DrawnText | None = None

    @classmethod
    def of(cls, sample: Sample, cache: CacheConfig) -> Decoded:
        """A sample in its bucket."""
        crop = crop_words(cache.seed, sample.id) if cache.crop == "random" else None
        placed = place_in_bucket(sample.image, cache.buckets, sample.original_size, crop)
        return cls(sample.tar, sample.key, sample.id, sample.captions, placed)

    def reject(self, reason: str, detail: str) -> Rejected:
        """The same sample, left out."""
        return Rejected(self.tar, self.key, reason, detail)


@dataclass(frozen=True)
class BucketRows:
    """Samples of one bucket with all their records, on the host."""

    bucket: str
    keys: list[str]
    captions: list[dict[str, str]]
    samples: Arrays
    """Array name -> ``[S, ...]``."""
    records: Arrays
    """Array name -> ``[S * K, ...]`` in (sample, draw) order."""

    def select(self, kept: Mask, num_draws: int) -> BucketRows:
        """Only the samples where ``kept`` (bool ``[S]``) is true."""
        if kept.all():
            return self
        return BucketRows(
            self.bucket,
            [key for key, keep in zip(self.keys, kept, strict=True) if keep],
            [captions for captions, keep in zip(self.captions, kept, strict=True) if keep],
            {name: rows[kept] for name, rows in self.samples.items()},
            {name: rows[np.repeat(kept, num_draws)] for name, rows in self.records.items()},
        )
