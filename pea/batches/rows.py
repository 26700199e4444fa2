"""The rows of a cache that share a latent shape, read piece by piece in a seeded random order.

A piece brings along its keys and captions; what stays in memory of the others is where they are and how many rows they
have.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pea.batches.pieces import Piece
from pea.batches.row_order import RowOrder
from pea.batches.selection import Selection
from pea.cache import Bucket
from pea.corpus.tars import sample_id

Array = npt.NDArray[Any]


class Row(NamedTuple):
    """One row, read: its arrays (without the leading dimension), sample id, draw and captions by language.

    A language in which it has no caption is not among them.
    """

    arrays: dict[str, Array]
    sample_id: str
    draw: int
    captions: dict[str, str]


class _Loaded(NamedTuple):
    """One piece in memory."""

    arrays: dict[str, Array]
    sample_level: set[str]
    """Names of those arrays that have a row per sample."""
    apart: list[str]
    """Names of the arrays that are read row by row, from `bucket`."""
    bucket: Bucket | None
    """Held open where it is still read from."""
    kept: Array | None
    keys: list[str]
    captions: dict[str, list[str]]


class CacheRows:
    """Rows of one cache that share a latent shape, read piece by piece, in random order within a window of pieces."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        arrays: Sequence[str],
        languages: Sequence[str],
        window: int,
        seed: int,
        name: str,
        selection: Selection | None = None,
    ) -> None:
        self._selection = selection
        self.pieces, self.arrays, self.languages = list(pieces), list(arrays), list(languages)
        self.draws_per_sample = max(1, self.pieces[0].bucket.draws_per_sample)
        self.order = RowOrder([piece.num_rows for piece in self.pieces], window, seed, name)
        self._loaded: OrderedDict[int, _Loaded] = OrderedDict()
        self._capacity = 2 * window + 2
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.order)

    def read(self, epoch: int, start: int, stop: int) -> list[Row]:
        """Rows `start..stop` of an epoch."""
        chosen = self.order.rows(epoch, start, stop).tolist()
        room: dict[str, Array] = {}
        under_way: list[Callable[[], object]] = []
        rows = [self._row(piece, row, room, place, len(chosen), under_way) for place, (piece, row) in enumerate(chosen)]
        for finish in under_way:
            finish()
        return rows

    def _row(
        self,
        index: int,
        row: int,
        room: dict[str, Array],
        place: int,
        count: int,
        under_way: list[Callable[[], object]],
    ) -> Row:
        """One row; what is not loaded piece by piece is being read to its place among `count` rows in `room`."""
        loaded, piece = self._load(index), self.pieces[index]
        row = row if loaded.kept is None else int(loaded.kept[row])
        sample, draw = divmod(row, self.draws_per_sample)
        arrays = {n: v[sample if n in loaded.sample_level else row] for n, v in loaded.arrays.items()}
        for name in loaded.apart:
            assert loaded.bucket is not None
            spec = loaded.bucket.arrays[name]
            first = piece.first * (1 if spec.level == "sample" else self.draws_per_sample)
            if name not in room:
                room[name] = np.empty((count, *spec.shape), dtype=spec.dtype)
            target = room[name][place : place + 1]
            position = first + (sample if spec.level == "sample" else row)
            under_way.append(loaded.bucket.begin_row(name, position, target))
            arrays[name] = target[0]
        captions = {language: texts[sample] for language, texts in loaded.captions.items() if texts[sample]}
        return Row(arrays, sample_id(piece.tar, loaded.keys[sample]), draw, captions)

    def _load(self, index: int) -> _Loaded:
        with self._lock:
            if index in self._loaded:
                self._loaded.move_to_end(index)
                return self._loaded[index]
            loaded = self._loaded[index] = self._read(self.pieces[index])
            while len(self._loaded) > self._capacity:
                self._loaded.popitem(last=False)
            return loaded

    def _read(self, piece: Piece) -> _Loaded:
        bucket, first, stop, k = piece.bucket, piece.first, piece.stop, self.draws_per_sample
        levels = {name: bucket.arrays[name].level for name in self.arrays}
        apart = [name for name in self.arrays if bucket.rows_apart(name)]
        by_sample = [name for name in self.arrays if levels[name] == "sample" and name not in apart]
        by_record = [name for name in self.arrays if levels[name] == "record" and name not in apart]
        arrays = bucket.read(by_sample, first, stop) | bucket.read(by_record, first * k, stop * k)
        all_kept = piece.num_rows == (stop - first) * k
        return _Loaded(
            arrays,
            set(by_sample),
            apart,
            bucket if apart else None,
            None if all_kept or not self._selection else self._selection.rows(bucket, piece.tar, first, stop),
            bucket.keys[first:stop],
            {code: bucket.captions(code)[first:stop] for code in self.languages},
        )


def stack(rows: Sequence[Row], name: str) -> Array:
    """One array of some rows, `[n, ...]`; not copied where `CacheRows.read` has put them side by side."""
    values = [row.arrays[name] for row in rows]
    whole = values[0].base
    if whole is None or whole.shape != (len(values), *values[0].shape):
        return np.stack(values)
    in_place = [_address(each) for each in values] == [_address(each) for each in whole]
    return whole if in_place else np.stack(values)


def language_of(row: Row, languages: Sequence[str], seed: int, index: int) -> str:
    """The language in which the student reads a row of batch `index`: drawn by both, among those that the row has."""
    spoken = [language for language in languages if language in row.captions]
    return spoken[zlib.crc32(f"{seed}/{index}/{row.sample_id}#{row.draw}".encode()) % len(spoken)]


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
