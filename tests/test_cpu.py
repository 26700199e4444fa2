"""Settings of torch that hold for a while."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pea.cpu import flushed_denormals

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor computes with all numbers")


def product() -> float:
    """Below 1.2e-38."""
    return float(torch.tensor([1e-20]) * 1e-19)


def test_tiny_numbers_are_0_while_it_holds_and_in_the_threads_that_are_started_then() -> None:
    assert product() > 0
    with flushed_denormals():
        assert product() == 0
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(product).result() == 0
    assert product() > 0


def test_what_was_set_before_stays_set() -> None:
    torch.set_flush_denormal(True)
    try:
        with flushed_denormals():
            pass
        assert product() == 0
    finally:
        torch.set_flush_denormal(False)
