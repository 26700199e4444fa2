"""Batches of cached queries with both texts, as a pure function of the batch's index: to resume is to ask for the next.

Shapes: B records, Q queries, C width of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pea.cache import Cache
from pea.cache.schema import QUERIES, TEXT_POOLED, TEXT_STATES
from pea.cache_rows import Row, open_rows
from pea.encoders import Conditioning
from pea.errors import CacheError


@dataclass(frozen=True)
class AttentionBatch:
    """B records of one latent shape."""

    queries: dict[str, Tensor]
    """Cross-attention layer -> the teacher's queries, `[B, Q, C]`."""
    english: Conditioning
    """What the teacher read; the empty caption where it was dropped."""
    native_captions: list[str]
    """What the student reads; empty where the caption is dropped."""
    time_ids: Tensor
    """int64 `[B, 6]`."""


class AttentionData:
    """Batches from the queries of a cache."""

    def __init__(
        self,
        cache: Cache,
        language: str,
        batch_size: int,
        seed: int,
        empty: Conditioning,
        window_bytes: int = 512 << 20,
    ) -> None:
        """`empty`: the English encoder's answer to the empty caption, one row.

        Raises:
            CacheError: the cache holds no queries, or no captions in the student's language.
        """
        self.batch_size, self.seed, self.language, self.empty = batch_size, seed, language, empty
        held = {name for shard in cache.shards for bucket in shard.buckets.values() for name in bucket.arrays}
        if TEXT_STATES not in held:
            raise CacheError(
                "the cache holds no attention queries",
                where=cache.directory,
                remedy="Set cache.attention and fill a cache with it, or set train.attention_steps to 0.",
            )
        names = sorted(name for name in held if name.startswith(f"{QUERIES}/") or name in (TEXT_STATES, TEXT_POOLED))
        self.rows = open_rows(
            cache, None, (language,), seed, window_bytes, arrays=("time_ids", "caption_dropped", *names)
        )
        self.batches_per_epoch = sum(self._num_batches(bucket) for bucket in self.rows)
        self._schedule = lru_cache(maxsize=2)(self._make_schedule)

    def batch(self, index: int) -> AttentionBatch:
        """Batch `index` of the phase; any index, in any order."""
        epoch, position = divmod(index, self.batches_per_epoch)
        bucket, turn = self._schedule(epoch)[position]
        return self._collate(self.rows[bucket].read(epoch, turn * self.batch_size, (turn + 1) * self.batch_size))

    def _num_batches(self, bucket: str) -> int:
        return max(1, len(self.rows[bucket]) // self.batch_size)

    def _make_schedule(self, epoch: int) -> list[tuple[str, int]]:
        turns = [(bucket, turn) for bucket in sorted(self.rows) for turn in range(self._num_batches(bucket))]
        return [turns[place] for place in np.random.default_rng((self.seed, epoch, 3)).permutation(len(turns))]

    def _collate(self, rows: list[Row]) -> AttentionBatch:
        dropped = torch.tensor([bool(row.arrays["caption_dropped"]) for row in rows])
        hidden = torch.where(
            dropped[:, None, None], self.empty.encoder_hidden_states, _stack(rows, TEXT_STATES).float()
        )
        pooled = None
        if self.empty.pooled_prompt_embeds is not None:
            pooled = torch.where(dropped[:, None], self.empty.pooled_prompt_embeds, _stack(rows, TEXT_POOLED).float())
        native = [row.captions[self.language] for row in rows]
        prefix = f"{QUERIES}/"
        return AttentionBatch(
            {n.removeprefix(prefix): _stack(rows, n) for n in rows[0].arrays if n.startswith(prefix)},
            Conditioning(hidden, pooled),
            ["" if drop else text for drop, text in zip(dropped.tolist(), native, strict=True)],
            _stack(rows, "time_ids").to(torch.int64),
        )


def _stack(rows: list[Row], name: str) -> Tensor:
    return torch.from_numpy(np.stack([row.arrays[name] for row in rows]))
