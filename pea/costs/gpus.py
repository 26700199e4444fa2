"""Published figures of GPUs, from which the hours of a run are counted where no rate was measured.

Source: the vendor's page, data sheet or white paper whose address stands beside each in ``gpus.json``, and for the
prices the page that is named there; looked up in November 2026, where the vendor's document itself could not be read in
tables that quote it. Prices and the share of a GPU's peak that a run reaches are assumptions: a price that is given,
and a rate that was measured, replace them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_TABLE = Path(__file__).with_name("gpus.json")


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    tflops: float
    """Peak of dense products in float16 and bfloat16 with tensor cores, TFLOP/s: without sparsity."""
    memory_gb: float
    usd_per_hour: float | None
    """What renting one costs, where a typical price is known."""
    source: str
    """The vendor's document, and what it says where that is not the figure of dense products."""
    url: str
    """Where that document is."""

    @property
    def sustained_tflops(self) -> float:
        """What a run is taken to reach, TFLOP/s."""
        return self.tflops * utilisation()


@cache
def gpus() -> dict[str, Gpu]:
    """Short name -> GPU, the default one among them: ``h100``."""
    return {key: Gpu(**each) for key, each in _table()["gpus"].items()}


def utilisation() -> float:
    """Share of the peak that a run is taken to reach, an assumption: `pea plan` says so beside every figure of it."""
    return float(_table()["utilisation"])


def price_source() -> str:
    """What the prices are, of when, and where they are from."""
    prices = _table()["prices"]
    return f"{prices['what']}, {prices['of']}, {prices['url']}"


def price_date() -> str:
    """Month and year of the prices."""
    return str(_table()["prices"]["of"])


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
