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

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Indices = Sequence[int] | npt.NDArray[np.integer]
_local = threading.local()
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: its multiples fill the circle evenly
_MASK = (1 << 64) - 1

# Rational approximations of AS 241, lowest power first.
_CENTRE = (
    (
        3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
        1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
        3.3430575583588128105e4, 2.5090809287301226727e3,
    ),
    (
        1.0, 4.2313330701600911252e1, 6.8718700749205790830e2,
        5.3941960214247511077e3, 2.1213794301586595867e4, 3.9307895800092710610e4,
        2.8729085735721942674e4, 5.2264952788528545610e3,
    ),
)  # fmt: skip
_TAIL = (
    (
        1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
        3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
        2.27238449892691845833e-2, 7.74545014278341407640e-4,
    ),
    (
        1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
        6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
        5.47593808499534494600e-4, 1.05075007164441684324e-9,
    ),
)  # fmt: skip
_FAR_TAIL = (
    (
        6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
        2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
        2.71155556874348757815e-5, 2.01033439929228813265e-7,
    ),
    (
        1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1,
        1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
        1.42151175831644588870e-7, 2.04426310338993978564e-15,
    ),
)  # fmt: skip


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


def standard_normal(words: npt.NDArray[np.uint64], count: int) -> FloatArray:
    """Turn random words into ``count`` standard normal values, two a word: float32 [count]."""
    halves = np.empty(2 * words.size, dtype=np.uint32)
    halves[0::2] = (words & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    halves[1::2] = (words >> np.uint64(32)).astype(np.uint32)
    uniform = (halves[:count].astype(np.float64) + 0.5) * 2.0**-32  # exact, and never 0 or 1
    return _inverse_normal(uniform).astype(np.float32)


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


def _inverse_normal(uniform: Float64Array) -> Float64Array:
    """The normal quantile of values in (0, 1), to about 1e-15: float64 in, float64 out."""
    centred = uniform - 0.5
    result = centred * _ratio(_CENTRE, 0.180625 - centred * centred)
    outer = np.abs(centred) > 0.425
    if outer.any():
        side = centred[outer]
        radius = np.sqrt(-_log(np.where(side < 0, uniform[outer], 1.0 - uniform[outer])))
        near = _ratio(_TAIL, radius - 1.6)
        far = _ratio(_FAR_TAIL, radius - 5.0)
        result[outer] = np.where(radius <= 5.0, near, far) * np.where(side < 0, -1.0, 1.0)
    return result


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Float64Array) -> Float64Array:
    return np.divide(_polynomial(coefficients[0], x), _polynomial(coefficients[1], x))


def _polynomial(coefficients: Sequence[float], x: Float64Array) -> Float64Array:
    """Horner's rule in separate multiplications and additions (a fused one would round differently)."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        np.multiply(result, x, out=result)
        np.add(result, coefficient, out=result)
    return result


def _log(x: Float64Array) -> Float64Array:
    """Natural logarithm from frexp and the atanh series, the same bits on every platform."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = exponent - small
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial([1.0 / (2 * power + 1) for power in range(11)], s * s)
    result: Float64Array = exponent * 0.6931471805599453 + 2.0 * s * series
    return result
