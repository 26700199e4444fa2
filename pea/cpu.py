"""Torch's threads, where several things are computed side by side on a CPU."""

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
