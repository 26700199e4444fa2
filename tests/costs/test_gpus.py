"""The table of GPUs: every figure has a source, and assumptions are called so."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pea.costs.gpus import gpus, price_source, utilisation


def test_every_peak_has_a_source_and_is_without_sparsity() -> None:
    assert "h100" in gpus() and len(gpus()) > 8
    for gpu in gpus().values():
        assert urlsplit(gpu.url).scheme == "https" and urlsplit(gpu.url).hostname.endswith(".nvidia.com"), gpu
        sparse = re.search(r"([\d,]+) with sparsity", gpu.source)
        assert sparse or gpu.name == "T4", gpu  # which has no sparse products
        if sparse:
            assert abs(float(sparse[1].replace(",", "")) / 2 - gpu.tflops) <= 5, gpu
        assert gpu.sustained_tflops == utilisation() * gpu.tflops < gpu.tflops
        assert gpu.memory_gb > 8 and (gpu.usd_per_hour is None or gpu.usd_per_hour > 0)


def test_prices_say_when_they_were_asked_and_where() -> None:
    assert re.search(r"\b20\d\d\b", price_source()) and "https://" in price_source()
