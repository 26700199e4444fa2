"""Open the rows of a cache: which arrays are read, and in which pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pea.batches.pieces import Piece, cut
from pea.batches.rows import CacheRows
from pea.batches.selection import Selection
from pea.cache import Bucket, Cache
from pea.cache.schema import NOISE_PRED, NOISY_LATENTS
from pea.errors import CacheError

if TYPE_CHECKING:
    from pea.cache.shard import Shard

_PIECE_BYTES = 32 << 20
_MAX_PIECE_SAMPLES = 1024
_SAMPLE_ARRAYS = ("latents_mean", "latents_std", "time_ids")
_RECORD_ARRAYS = ("timestep", "caption_dropped", "noise_checksum", "record_id", NOISY_LATENTS)


def open_rows(
    cache: Cache,
    blocks: Sequence[str] | None,
    languages: Sequence[str],
    seed: int,
    window_bytes: int,
    arrays: Sequence[str] | None = None,
    selection: Selection | None = None,
    *,
    beside: Sequence[str] = (),
) -> dict[str, CacheRows]:
    """Bucket name -> its rows over all shards. `blocks` None reads samples only (a culture cache).

    `arrays`: read these instead, `beside`: read these as well, where a bucket has them. `selection`: keep these rows
    only.

    Raises:
        CacheError: there are no rows.
    """
    wanted = _Wanted(blocks, arrays, selection, beside)
    pieces: dict[str, list[Piece]] = {}
    buckets: dict[str, _BucketPieces] = {}
    for found in chain.from_iterable(cache.of_each_shard(wanted.look)):
        buckets[found.name] = found
        if found.pieces:
            pieces.setdefault(found.name, []).extend(found.pieces)
    if not pieces:
        raise _no_rows(cache, selection)
    rows = {}
    for name, parts in pieces.items():
        samples = max(part.stop - part.first for part in parts)
        window = max(2, window_bytes // (samples * buckets[name].row_bytes))
        rows[name] = CacheRows(parts, buckets[name].arrays, languages, min(window, len(parts)), seed, name, selection)
    return rows


class _BucketPieces(NamedTuple):
    """What is read of one bucket of a shard."""

    name: str
    arrays: list[str]
    row_bytes: int
    """Of those arrays, for a sample with all its draws."""
    pieces: list[Piece]


@dataclass(frozen=True)
class _Wanted:
    """What is read of each shard; see ``open_rows``."""

    blocks: Sequence[str] | None
    arrays: Sequence[str] | None
    selection: Selection | None
    beside: Sequence[str]

    def look(self, shard: Shard) -> list[_BucketPieces]:
        """Open a shard, check it and cut it."""
        return [self._look(shard, name, bucket) for name, bucket in shard.buckets.items()]

    def _look(self, shard: Shard, name: str, bucket: Bucket) -> _BucketPieces:
        every = self.arrays or [*_wanted_arrays(bucket, self.blocks), *self.beside]
        arrays = [n for n in every if n in bucket.arrays]
        row_bytes = sum(_sample_bytes(bucket, array) for array in arrays)
        step = max(1, min(_MAX_PIECE_SAMPLES, _PIECE_BYTES // row_bytes))
        pieces = [piece for piece in cut(shard, name, step, self.selection) if piece.num_rows]
        return _BucketPieces(name, arrays, row_bytes, pieces)


def _no_rows(cache: Cache, selection: Selection | None) -> CacheError:
    if selection is None or not cache.num_samples:
        return CacheError("the cache has no rows", where=cache.directory, remedy="Run `pea cache` first.")
    return CacheError(
        "no rows are left",
        where=cache.directory,
        got=selection,
        remedy="Change student.language, train.validation_fraction or train.timesteps; lower train.curriculum_stages.",
    )


def _wanted_arrays(bucket: Bucket, blocks: Sequence[str] | None) -> list[str]:
    if blocks is None:
        return list(_SAMPLE_ARRAYS)
    features = [n for n in bucket.arrays if n.startswith("features/") and n.split("/")[1] in blocks]
    noise_pred = [n for n in bucket.arrays if n.split("/")[0] == NOISE_PRED]
    # `squared_norm` and the like of a sketch are kept for reports; they are a few bytes.
    return [*_SAMPLE_ARRAYS, *_RECORD_ARRAYS, *noise_pred, *features]


def _sample_bytes(bucket: Bucket, name: str) -> int:
    """Bytes of one array for one sample with all its draws."""
    spec = bucket.arrays[name]
    times = bucket.draws_per_sample if spec.level == "record" else 1
    return int(np.dtype(spec.dtype).itemsize * np.prod(spec.shape, dtype=np.int64)) * times
