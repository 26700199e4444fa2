"""Settings of torch for computing on a CPU, which hold for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def shared_threads(num_sharers: int) -> Iterator[None]:
    """Share torch's threads among so many Python threads; torch has one setting for the whole process."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, num_threads // num_sharers))
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take numbers below 1.2e-38 for 0, in this thread and those that it starts, where the processor can.

    Some processors compute with them many times slower. The gradients of attention that is nearly sure are full of
    them: the probabilities that it leaves over, times a small error.
    """
    before = _flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_denormals() -> bool:
    """Torch can set it, but does not say how it is set."""
    return float(torch.tensor(1e-39) * 1) == 0
