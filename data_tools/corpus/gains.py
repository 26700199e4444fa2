"""How far descriptions lower the teacher's own noise error, by sample, from a cache that has recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pea.batches.selection import description_gains
from pea.cache import Cache
from pea.cache.schema import NOISE_ERRORS
from pea.errors import CacheError


class DescriptionGains:
    """The gains in a cache of described images; those of a few tars stay in memory."""

    def __init__(self, directory: str) -> None:
        """Raises CacheError where there is no cache, or one that records no noise errors."""
        self._cache = Cache.open(directory, partial=True)
        self._shards = {shard.tar: shard for shard in self._cache.shards}
        buckets = (bucket for shard in self._cache.shards for bucket in shard.buckets.values())
        if any(NOISE_ERRORS not in bucket.arrays for bucket in buckets) or not self._cache.num_samples:
            raise CacheError(
                "the cache records no noise errors of descriptions",
                where=directory,
                remedy="Give the cache `described` of a run with corpora.described.",
            )
        self.of_tar = lru_cache(maxsize=2)(self._of_tar)

    @property
    def digest(self) -> str:
        """Of the cache's identity."""
        return self._cache.identity.digest

    def _of_tar(self, tar: str) -> Mapping[str, float]:
        """Key -> by what share its description lowers the error; empty of a tar that the cache does not have.

        Raises:
            ShardDamagedError: what is stored cannot be read.
        """
        found: dict[str, float] = {}
        for bucket in self._shards[tar].buckets.values() if tar in self._shards else ():
            gains = description_gains(bucket, 0, bucket.num_samples)
            found |= dict(zip(bucket.keys, gains.tolist(), strict=True))
        return found
