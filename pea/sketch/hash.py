"""Counter-based random words in torch int64, the same bits on CPU and GPU.

Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finalizer on int64: a bijection whose every output bit depends on every input bit."""
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def record_keys(record_ids: npt.NDArray[np.uint64] | Tensor, block_key: int, device: torch.device) -> Tensor:
    """One key per record of a block: int64 [B]. ``record_ids``: uint64, or int64 of the same bits."""
    if isinstance(record_ids, Tensor):
        ids = record_ids if record_ids.dtype == torch.int64 else record_ids.view(torch.int64)
    else:
        ids = torch.from_numpy(np.ascontiguousarray(record_ids, dtype=np.uint64).view(np.int64))
    return mix(ids.to(device, non_blocking=True) ^ block_key)


@cache
def _purpose_key(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little", signed=True)


def words(keys: Tensor, purpose: str, count: int) -> Tensor:
    """``count`` random words per key, other ones for each purpose: int64 [B, count]."""
    counter = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    return mix(mix(keys ^ _purpose_key(purpose))[:, None] + counter)


def signs(keys: Tensor, count: int) -> Tensor:
    """Random signs, one bit of a word each: float32 [B, count] of -1 and 1. 64 divides ``count``."""
    octets = words(keys, "signs", count // 64).view(torch.uint8)
    return torch.nn.functional.embedding(octets.int(), _sign_table(keys.device)).flatten(1)


@cache
def _sign_table(device: torch.device) -> Tensor:
    """The eight signs of each byte: float32 [256, 8]."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return (2.0 * bits - 1.0).float().to(device)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """Random numbers, the centres of 2**16 equal steps of [0, 1): float32 [B, count]."""
    quarters = words(keys, "rounding", (count + 3) // 4).view(torch.int16)[:, :count]
    return ((quarters.int() & 0xFFFF).float() + 0.5) * 2.0**-16
