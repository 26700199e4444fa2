"""Batches of both texts, with cached queries or without them, each a pure function of its index.

Shapes: B records, Q queries, C width of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pea.attention.queries import AttentionTargets
from pea.batches.attention_rows import (
    attention_arrays,
    stored_english,
    stored_queries,
    text_arrays,
    time_ids,
    with_drops,
)
from pea.batches.opening import open_rows
from pea.batches.rows import Row, language_of
from pea.batches.selection import Selection
from pea.batches.text_states import Encode
from pea.cache import Cache
from pea.cache.schema import ArraySpec
from pea.models.conditioning import Conditioning, on_device


@dataclass(frozen=True)
class AttentionBatch:
    """B records of one latent shape."""

    targets: AttentionTargets
    """The teacher's queries, none where they are not read, and its text."""
    native_captions: list[str]
    """What the student reads; empty where the caption is dropped."""
    native_pooled_captions: list[str] | None = None
    """What the student's pooled embedding reads, where a dropped caption stays in it; None: the same."""


class EnglishTexts(NamedTuple):
    """English texts that are not read from the cache."""

    encode: Encode
    """Captions -> hidden states `[B, L, D]` and pooled embedding (or None)."""
    language: str
    """Of the captions, in the cache."""


class AttentionData:
    """Batches from the records of a cache, without images and noise."""

    def __init__(
        self,
        cache: Cache,
        languages: Sequence[str],
        batch_size: int,
        seed: int,
        empty: Conditioning,
        *,
        with_queries: bool = True,
        english: EnglishTexts | None = None,
        keep_pooled: bool = False,
        selection: Selection | None = None,
        window_bytes: int = 512 << 20,
    ) -> None:
        """Rows without a caption in a language are left out; of several, each row of each batch draws one that it has.

        `empty`: the English encoder's answer to the empty caption, one row. `english`: where the others come from;
        None: from the cache. `keep_pooled`: a dropped caption stays in the pooled embedding. `selection`: the rows to
        read.

        Raises:
            CacheError: the cache holds no queries, or no captions in the student's languages.
        """
        self.batch_size, self.seed, self.languages, self.empty = batch_size, seed, tuple(languages), empty
        self.keep_pooled, self.english = keep_pooled, english
        names = attention_arrays(cache) if with_queries else []
        if not with_queries and english is None:
            names = text_arrays(cache)
        read = self.languages if english is None else (*self.languages, english.language)
        arrays = ("time_ids", "caption_dropped", *names)
        selection = replace(selection or Selection(), languages=self.languages)
        self.rows = open_rows(cache, None, read, seed, window_bytes, arrays, selection)
        self.batches_per_epoch = sum(self._num_batches(bucket) for bucket in self.rows)
        self._schedule = lru_cache(maxsize=2)(self._make_schedule)

    def batch(self, index: int) -> AttentionBatch:
        """Batch `index` of the phase; any index, in any order."""
        epoch, position = divmod(index, self.batches_per_epoch)
        bucket, turn = self._schedule(epoch)[position]
        rows = self.rows[bucket]
        specs = rows.pieces[0].bucket.arrays
        return self._collate(rows.read(epoch, turn * self.batch_size, (turn + 1) * self.batch_size), specs, index)

    @property
    def num_records(self) -> int:
        """Records that an epoch is made of."""
        return sum(len(rows) for rows in self.rows.values())

    @property
    def rows_of_epoch(self) -> dict[str, tuple[int, int]]:
        """Bucket -> records of its batches in an epoch, and 0 culture rows."""
        return {bucket: (self._num_batches(bucket) * self.batch_size, 0) for bucket in self.rows}

    def _num_batches(self, bucket: str) -> int:
        return max(1, len(self.rows[bucket]) // self.batch_size)

    def _make_schedule(self, epoch: int) -> list[tuple[str, int]]:
        turns = [(bucket, turn) for bucket in sorted(self.rows) for turn in range(self._num_batches(bucket))]
        return [turns[place] for place in np.random.default_rng((self.seed, epoch, 3)).permutation(len(turns))]

    def _collate(self, rows: list[Row], specs: Mapping[str, ArraySpec], index: int) -> AttentionBatch:
        native = [row.captions[language_of(row, self.languages, self.seed, index)] for row in rows]
        dropped = [bool(row.arrays["caption_dropped"]) for row in rows]
        targets = AttentionTargets(stored_queries(rows, specs), self._english(rows), time_ids(rows))
        return AttentionBatch(
            targets,
            ["" if drop else text for drop, text in zip(dropped, native, strict=True)],
            native if self.keep_pooled and targets.english.pooled_prompt_embeds is not None else None,
        )

    def _english(self, rows: list[Row]) -> Conditioning:
        """What the teacher read, float32."""
        if self.english is None:
            return stored_english(rows, self.empty, keep_pooled=self.keep_pooled)
        captions = [row.captions[self.english.language] for row in rows]
        found = on_device(self.english.encode(captions), "cpu")
        return with_drops(found, rows, self.empty, keep_pooled=self.keep_pooled)
