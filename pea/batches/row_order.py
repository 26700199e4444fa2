"""A seeded random order of rows that lie in pieces on disk: pieces shuffled, rows shuffled within windows of pieces.

The order is a pure function of (seed, epoch), and any part of it can be asked for alone: to resume is to ask for the
next.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class RowOrder:
    """Random orders of `sum(sizes)` rows, where piece `i` has `sizes[i]` rows."""

    def __init__(self, sizes: Sequence[int], pieces_per_window: int, seed: int, name: str) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.pieces_per_window = max(1, pieces_per_window)
        self._key = (seed, zlib.crc32(name.encode()))
        # Two epochs and a few windows: a batch can lie across the border of either.
        self._windows = lru_cache(maxsize=2)(self._make_windows)
        self._window_rows = lru_cache(maxsize=4)(self._make_window_rows)

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """Positions `start..stop` of an epoch: int64 `[n, 2]` of (piece, row within the piece)."""
        _, ends = self._windows(epoch)
        stop = min(stop, len(self))
        parts = [np.empty((0, 2), dtype=np.int64)]
        while start < stop:
            window = int(np.searchsorted(ends, start, side="right"))
            first = int(ends[window - 1]) if window else 0
            taken = min(stop, int(ends[window]))
            parts.append(self._window_rows(epoch, window)[start - first : taken - first])
            start = taken
        return np.concatenate(parts)

    def _make_windows(self, epoch: int) -> tuple[list[Rows], Rows]:
        """Pieces of each window, and the position after each window's last row."""
        order = np.random.default_rng((*self._key, epoch)).permutation(len(self.sizes))
        step = self.pieces_per_window
        windows = [order[i : i + step] for i in range(0, len(order), step)]
        return windows, np.cumsum([int(self.sizes[window].sum()) for window in windows], dtype=np.int64)

    def _make_window_rows(self, epoch: int, window: int) -> Rows:
        pieces = self._windows(epoch)[0][window]
        rows = np.concatenate([np.stack([np.full(self.sizes[p], p), np.arange(self.sizes[p])], 1) for p in pieces])
        shuffled: Rows = np.random.default_rng((*self._key, epoch, window, 1)).permutation(rows)
        return shuffled


class Schedule(NamedTuple):
    """Batches of several buckets in one order, six bytes each: a long epoch has millions."""

    names: list[str]
    buckets: npt.NDArray[np.uint16]
    """Of each batch, the number of its bucket."""
    turns: npt.NDArray[np.int32]
    """The how-manieth of its bucket each batch is."""

    def at(self, position: int) -> tuple[str, int]:
        """Bucket and turn of one batch."""
        return self.names[self.buckets[position]], int(self.turns[position])


def shuffled_turns(names: Sequence[str], counts: Sequence[int], generator: np.random.Generator) -> Schedule:
    """`counts[i]` batches of bucket `names[i]`, the buckets in random order, the batches of each in theirs."""
    buckets = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
    buckets = buckets[generator.permutation(len(buckets))]
    turns = np.empty(len(buckets), dtype=np.int32)
    for number, count in enumerate(counts):
        turns[buckets == number] = np.arange(count, dtype=np.int32)
    return Schedule(list(names), buckets, turns)
