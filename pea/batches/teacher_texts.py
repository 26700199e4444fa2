"""Statistics of the text states that a cache's teacher was told.

They stand beside the cache since the caching stage takes them. For an older one they are taken from the text states
that it holds, or whoever trains asks the English encoder once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pea.cache import Cache
from pea.cache.schema import TEXT_POOLED, TEXT_STATES
from pea.cache.text_statistics import NUM_CAPTIONS, read_statistics
from pea.models.conditioning import Conditioning
from pea.models.text_statistics import TextStatistics, text_statistics


def statistics_of(cache: Cache, ask: Callable[[], TextStatistics]) -> TextStatistics:
    """Statistics of the teacher's text states; `ask` is called where the cache has none and holds no text states.

    Raises:
        CacheError: what is beside the cache is damaged.
        ValueError: the text states are not finite.
    """
    return read_statistics(cache.directory) or _of_stored_states(cache) or ask()


def _of_stored_states(cache: Cache) -> TextStatistics | None:
    """Of the text states that stand beside attention queries; None where the cache keeps none."""
    groups = list(_stored_states(cache))
    return text_statistics(groups) if groups else None


def _stored_states(cache: Cache) -> Iterator[Conditioning]:
    left = NUM_CAPTIONS
    for shard in cache.shards:
        for bucket in shard.buckets.values():
            if TEXT_STATES not in bucket.arrays or not left:
                continue
            rows = min(left, bucket.num_samples)
            pooled = _tensor(bucket.read([TEXT_POOLED], 0, rows)[TEXT_POOLED]) if TEXT_POOLED in bucket.arrays else None
            yield Conditioning(_tensor(bucket.read([TEXT_STATES], 0, rows)[TEXT_STATES]), pooled)
            left -= rows


def _tensor(rows: object) -> Tensor:
    return torch.as_tensor(rows).double()
