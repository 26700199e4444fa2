"""Rows of a cache as targets of attention distillation: stored queries, and the English text states beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from pea.attention.queries import LayerQueries, read_queries
from pea.batches.rows import Row, stack
from pea.cache import Cache
from pea.cache.schema import QUERIES, QUERY_LAYERS, QUERY_SCALES, TEXT_POOLED, TEXT_STATES, ArraySpec
from pea.errors import CacheError
from pea.models.conditioning import Conditioning

_QUERY_ARRAYS = (QUERIES, QUERY_SCALES, QUERY_LAYERS)
_TEXT_ARRAYS = (TEXT_STATES, TEXT_POOLED)


def text_arrays(cache: Cache) -> list[str]:
    """Names of the arrays of the English text states; empty where the cache keeps none."""
    return sorted(_names(cache).intersection(_TEXT_ARRAYS))


def attention_arrays(cache: Cache) -> list[str]:
    """Names of the arrays of queries, and of the English text states.

    Raises:
        CacheError: the cache holds none.
    """
    names, text = _names(cache), text_arrays(cache)
    if not text:
        raise CacheError(
            "the cache holds no attention queries",
            where=cache.directory,
            remedy="Set cache.attention and run `pea cache --extend`, or train without it.",
        )
    return [*text, *sorted(name for name in names if name.partition("/")[0] in _QUERY_ARRAYS)]


def stored_queries(rows: Sequence[Row], specs: Mapping[str, ArraySpec]) -> dict[str, LayerQueries]:
    """Cross-attention layer -> the queries of the rows that keep them."""
    names = [name for name in rows[0].arrays if name.partition("/")[0] in _QUERY_ARRAYS]
    return read_queries({name: stack(rows, name) for name in names}, specs)


def stored_english(rows: Sequence[Row], empty: Conditioning, *, keep_pooled: bool) -> Conditioning:
    """What the teacher read, float32, from the stored states."""
    pooled = _stack(rows, TEXT_POOLED).float() if empty.pooled_prompt_embeds is not None else None
    found = Conditioning(_stack(rows, TEXT_STATES).float(), pooled)
    return with_drops(found, rows, empty, keep_pooled=keep_pooled)


def with_drops(english: Conditioning, rows: Sequence[Row], empty: Conditioning, *, keep_pooled: bool) -> Conditioning:
    """The text of every row, or `empty` (one row) where its caption is dropped.

    `keep_pooled`: a dropped caption stays in the pooled embedding.
    """
    dropped = torch.tensor([bool(row.arrays["caption_dropped"]) for row in rows])
    hidden, pooled = english
    hidden = torch.where(dropped[:, None, None], empty.encoder_hidden_states, hidden)
    if pooled is not None and not keep_pooled:
        assert empty.pooled_prompt_embeds is not None
        pooled = torch.where(dropped[:, None], empty.pooled_prompt_embeds, pooled)
    return Conditioning(hidden, pooled)


def time_ids(rows: Sequence[Row]) -> Tensor:
    """int64 `[B, 6]`."""
    return _stack(rows, "time_ids").to(torch.int64)


def _names(cache: Cache) -> set[str]:
    """Of all arrays of a cache."""
    found = cache.of_each_shard(lambda shard: [name for bucket in shard.buckets.values() for name in bucket.arrays])
    return set(chain.from_iterable(found))


def _stack(rows: Sequence[Row], name: str) -> Tensor:
    return torch.from_numpy(stack(rows, name))
