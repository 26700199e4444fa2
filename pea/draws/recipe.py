"""Draws: (timestep, noise, caption drop) of every record, from the sample's key alone.

Every number comes from Philox counters keyed by (seed, purpose, sample id, draw), never by batch, worker, or
order. Only integer operations and the IEEE elementary operations (+ - * / sqrt, frexp) are used, because the
last bits of a ``log`` or ``cos`` differ between platforms: the same record is bit-identical everywhere.

Source: Salmon et al. 2011 (Philox4x64-10, numpy's raw output is stable by policy); Wichura 1988, algorithm
AS 241 (PPND16, the inverse of the normal distribution).
"""

from __future__ import annotations

import hashlib
import math
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pea.draws.normal import FloatArray, standard_normal

Indices = Sequence[int] | npt.NDArray[np.integer]
_local = threading.local()
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: its multiples fill the circle evenly
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class DrawRecipe:
    """What fixes every draw, given a sample's id."""

    seed: int
    """Seed of the cache."""
    caption_drop_rate: float
    """Probability that a draw drops the caption."""
    num_train_timesteps: int
    """T: timesteps are integers in [0, T)."""
    noise_offset: float = 0.0
    """Factor of the normal shift that a whole channel of a record's noise receives."""


@dataclass(frozen=True)
class Draws:
    """Consecutive draws of one sample, n of them."""

    timestep: npt.NDArray[np.int64]
    """int64 [n], in [0, T)."""
    caption_dropped: npt.NDArray[np.bool_]
    """bool [n]."""


def draws(recipe: DrawRecipe, sample_id: str, start: int, stop: int) -> Draws:
    """Draws ``start <= k < stop`` of a sample. Draw k is the same whatever the range it is asked in.

    The timesteps are ``floor(T * frac(u + k / golden ratio))`` with u uniform per sample: stratified over
    [0, T) for any number of draws.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"draws {start}..{stop} are not a range")
    first = int(_words(recipe.seed, "timestep", sample_id, 0, 1)[0])
    turns = [(first + k * _GOLDEN) & _MASK for k in range(start, stop)]
    timestep = np.array([(turn * recipe.num_train_timesteps) >> 64 for turn in turns], dtype=np.int64)
    uniforms = [int(_words(recipe.seed, "caption_drop", sample_id, k, 1)[0]) >> 11 for k in range(start, stop)]
    threshold = math.ldexp(recipe.caption_drop_rate, 53)
    dropped = np.array([uniform < threshold for uniform in uniforms], dtype=np.bool_)
    return Draws(timestep, dropped)


def noise(recipe: DrawRecipe, sample_id: str, draw: int, shape: Sequence[int]) -> FloatArray:
    """The noise of one record, standard normal but for its offset: float32 of ``shape`` [c, ...], in C order."""
    values: FloatArray = _offset(
        recipe, _normal(recipe.seed, "noise", sample_id, draw, shape)[None], [sample_id], [draw]
    )[0]
    return values


def latent_noise(recipe: DrawRecipe, sample_id: str, draw: int, shape: Sequence[int]) -> FloatArray:
    """The standard normal noise that samples the VAE's posterior for one record: float32 of ``shape``."""
    return _normal(recipe.seed, "latent", sample_id, draw, shape)


def noise_batch(
    recipe: DrawRecipe, sample_ids: Sequence[str], draw_indices: Indices, shape: Sequence[int]
) -> FloatArray:
    """``noise`` of n records: float32 [n, *shape]."""
    values = _normal_batch(recipe.seed, "noise", sample_ids, draw_indices, shape)
    return _offset(recipe, values, sample_ids, draw_indices)


def _offset(recipe: DrawRecipe, noise: FloatArray, sample_ids: Sequence[str], draw_indices: Indices) -> FloatArray:
    """Noise [n, c, ...] with the recipe's shift of every channel; unchanged where the recipe has none.

    Source: N. Guttenberg, "Diffusion with Offset Noise", 2023; ``noise_offset`` of the original training code.
    """
    if not recipe.noise_offset:
        return noise
    shifts = _normal_batch(recipe.seed, "noise_offset", sample_ids, draw_indices, (noise.shape[1],))
    shifts = shifts.reshape(*shifts.shape, *(1,) * (noise.ndim - 2))
    return noise + np.float32(recipe.noise_offset) * shifts


def latent_noise_batch(
    recipe: DrawRecipe, sample_ids: Sequence[str], draw_indices: Indices, shape: Sequence[int]
) -> FloatArray:
    """``latent_noise`` of n records: float32 [n, *shape]."""
    return _normal_batch(recipe.seed, "latent", sample_ids, draw_indices, shape)


def start_noise_batch(recipe: DrawRecipe, sample_ids: Sequence[str], shape: Sequence[int]) -> FloatArray:
    """What the teacher's drawing of n texts starts from, standard normal: float32 [n, *shape]."""
    return _normal_batch(recipe.seed, "drawing", sample_ids, [0] * len(sample_ids), shape)


def drawn_choice(recipe: DrawRecipe, sample_id: str, count: int) -> int:
    """One of ``count`` shapes for the drawing of a text, each as likely."""
    return (int(_words(recipe.seed, "shape", sample_id, 0, 1)[0]) * count) >> 64


def crop_words(seed: int, sample_id: str) -> tuple[int, int]:
    """Two random numbers in [0, 2**64), for where a sample's image is cropped: from above and from the left."""
    from_above, from_left = _words(seed, "crop", sample_id, 0, 2).tolist()
    return from_above, from_left


def checksum(values: FloatArray) -> int:
    """Checksum (CRC-32 of the little-endian float32 bytes) of one record's noise."""
    return zlib.crc32(np.ascontiguousarray(values, dtype="<f4").tobytes())


def record_id(sample_id: str, draw: int) -> int:
    """The number in [0, 2**64) that names a record wherever a string would be too long."""
    return int.from_bytes(hashlib.sha256(f"record\0{draw}\0{sample_id}".encode()).digest()[:8], "little")


def record_ids(sample_ids: Sequence[str], draw_indices: Indices) -> npt.NDArray[np.uint64]:
    """``record_id`` of n records: uint64 [n]."""
    pairs = zip(sample_ids, draw_indices, strict=True)
    return np.array([record_id(sample_id, int(draw)) for sample_id, draw in pairs], dtype=np.uint64)


def query_positions(
    recipe: DrawRecipe, layer: str, sample_ids: Sequence[str], draw: int, num_positions: int, num_queries: int
) -> npt.NDArray[np.int64]:
    """Spatial positions of one layer whose query is kept, for one draw of n samples: int64 [n, min(Q, N)], sorted.

    Each is a uniform random subset of ``num_positions`` (N) positions, independent between layers and records.
    Source: R. Floyd's sampling without replacement (Bentley, CACM 30(9), 1987).
    """
    if num_queries >= num_positions:
        return np.tile(np.arange(num_positions, dtype=np.int64), (len(sample_ids), 1))
    rows = np.empty((len(sample_ids), num_queries), dtype=np.int64)
    for row, sample_id in enumerate(sample_ids):
        chosen: set[int] = set()
        words = _words(recipe.seed, f"query\0{layer}", sample_id, draw, num_queries)
        for last, word in zip(range(num_positions - num_queries, num_positions), words.tolist(), strict=True):
            position = (word * (last + 1)) >> 64
            chosen.add(last if position in chosen else position)
        rows[row] = sorted(chosen)
    return rows


def _words(seed: int, purpose: str, sample_id: str, draw: int, count: int) -> npt.NDArray[np.uint64]:
    """``count`` random uint64: key = (seed, purpose, sample), counter = (position, draw, 0, 0)."""
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{sample_id}".encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    generator = _generator()
    generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": np.array([0, draw, 0, 0], dtype=np.uint64), "key": key},
        "buffer": np.zeros(4, dtype=np.uint64),
        "buffer_pos": 4,  # empty
        "has_uint32": 0,
        "uinteger": 0,
    }
    words: npt.NDArray[np.uint64] = generator.random_raw(count)
    return words


def _generator() -> np.random.Philox:
    """One generator per thread: a new one would ask the operating system for entropy that is not used."""
    if not hasattr(_local, "generator"):
        _local.generator = np.random.Philox(0)
    generator: np.random.Philox = _local.generator
    return generator


def _normal(seed: int, purpose: str, sample_id: str, draw: int, shape: Sequence[int]) -> FloatArray:
    count = math.prod(shape)
    words = _words(seed, purpose, sample_id, draw, (count + 1) // 2)
    return standard_normal(words, count).reshape(tuple(shape))


def _normal_batch(
    seed: int, purpose: str, sample_ids: Sequence[str], draw_indices: Indices, shape: Sequence[int]
) -> FloatArray:
    count = math.prod(shape)
    half = (count + 1) // 2
    words = np.empty((len(sample_ids), half), dtype=np.uint64)
    for row, (sample_id, draw) in enumerate(zip(sample_ids, draw_indices, strict=True)):
        words[row] = _words(seed, purpose, sample_id, int(draw), half)
    values = standard_normal(words.reshape(-1), 2 * words.size).reshape(len(sample_ids), 2 * half)
    return np.ascontiguousarray(values[:, :count]).reshape(len(sample_ids), *shape)
