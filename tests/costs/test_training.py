"""The arithmetic of training is counted from shapes, for any UNet, and what a run reports is the sum of its phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pea.config import AttentionConfig, Config, PhaseConfig
from pea.costs.caching import read_models, unet_flops
from pea.costs.training import RowFlops, adapter_flops
from pea.models.adapter import new_adapter
from stages import train_adapter
from stages.command.console import Console
from tests.train_runs import variant

ROWS = {"16x16": (6, 2)}


def row_flops(config: Config, rows: dict[str, tuple[int, int]] = ROWS, **train: Any) -> RowFlops:
    unet = read_models(config.teacher.checkpoint).unet
    adapter = new_adapter(unet, 16, hidden_size=16, num_layers=2, max_tokens=10, seed=0)
    return RowFlops(variant(config, Path(), **train), adapter, rows)


def test_the_adapter_is_counted_forward_and_backward(tiny_sdxl: Config) -> None:
    unet = read_models(tiny_sdxl.teacher.checkpoint).unet
    adapter = new_adapter(unet, 16, hidden_size=20, num_layers=2, max_tokens=10, seed=0)
    weights = 16 * 20 + 20 * 20 + 20 * 12 + 12 * 32
    assert adapter_flops(adapter) == 10 * 6 * weights
    assert all(parameter.device.type == "cpu" and parameter.grad is None for parameter in adapter.parameters())


@pytest.mark.slow
def test_rows_cost_what_their_passes_cost(tiny_sdxl: Config) -> None:
    unet = read_models(tiny_sdxl.teacher.checkpoint).unet
    one = unet_flops(unet, (4, 8, 8), 10)
    cached = row_flops(tiny_sdxl)
    assert cached.text == cached.adapter
    assert cached.unet == pytest.approx(cached.adapter + 2 * one)
    assert row_flops(tiny_sdxl, targets="live").unet == pytest.approx(cached.unet + one * 6 / 8)
    assert row_flops(tiny_sdxl, gradient_checkpointing=True).unet == pytest.approx(cached.unet + one)
    wide = row_flops(tiny_sdxl, {"16x24": (8, 0)})
    assert wide.unet > 1.3 * cached.unet
    mixed = row_flops(tiny_sdxl, {"16x16": (6, 2), "16x24": (8, 0)})
    assert mixed.unet == pytest.approx((cached.unet + wide.unet) / 2)


@pytest.mark.slow
def test_the_unet_is_counted_for_the_rows_that_a_loss_looks_at(tiny_sdxl: Config) -> None:
    one = unet_flops(read_models(tiny_sdxl.teacher.checkpoint).unet, (4, 8, 8), 10)
    alone = {"noise_pred_weight": 0.0, "feature_weight": 0.0, "text_weight": 1.0}
    assert row_flops(tiny_sdxl, {"16x16": (8, 0)}, **alone).unet == row_flops(tiny_sdxl).adapter
    culture = row_flops(tiny_sdxl, **alone)
    assert row_flops(tiny_sdxl).unet_share == 1 and culture.unet_share == 2 / 8
    assert row_flops(tiny_sdxl, {"16x16": (8, 0)}, **alone).unet_share == 0
    assert culture.unet == pytest.approx(culture.adapter + 2 * one * 2 / 8)
    asked = alone | {"attention_weight": 1.0, "diffusion_weight": 0.0}
    cached = row_flops(tiny_sdxl, **asked)
    own = row_flops(tiny_sdxl, **asked, attention_queries="student")
    assert own.unet >= cached.unet + one, "one pass, and every position"
    every = row_flops(tiny_sdxl, **asked | {"diffusion_weight": 1.0}, attention_queries="student")
    assert every.unet == pytest.approx(own.unet + one), "with culture rows there is a way back"


@pytest.mark.slow
def test_a_run_reports_the_sum_of_its_phases(tiny_sdxl: Config, tmp_path: Path) -> None:
    phases = (PhaseConfig(kind="text", steps=2, batch_size=6), PhaseConfig(kind="unet", steps=2))
    summary = train_adapter.run(variant(tiny_sdxl, tmp_path, phases=phases, culture_fraction=0.0), Console(quiet=True))
    text, unet = summary["phases"]
    flops = row_flops(tiny_sdxl, {"16x16": (1, 0)})
    assert text["tflop"] == pytest.approx(2 * 6 * flops.adapter / 1e12, rel=1e-4)
    assert unet["tflop"] > 2 * 8 * flops.unet / 1e12, "some images are larger"
    assert summary["tflop"] == pytest.approx(text["tflop"] + unet["tflop"], rel=1e-4)
    assert (text["unet_rows"], unet["unet_rows"], summary["unet_rows"]) == (0, 16, 16)
    assert 0 < text["cpu_seconds"] < summary["cpu_seconds"]
    assert summary["cpu_seconds"] == pytest.approx(text["cpu_seconds"] + unet["cpu_seconds"], abs=0.02)
    assert summary["seconds"] == pytest.approx(text["seconds"] + unet["seconds"], abs=0.02)


@pytest.mark.slow
def test_queries_are_counted_where_they_are_kept(tiny_sdxl: Config) -> None:
    def kept(**attention: Any) -> float:
        cache = tiny_sdxl.cache.model_copy(update={"attention": AttentionConfig(**attention)})
        flops = row_flops(tiny_sdxl.model_copy(update={"cache": cache}))
        return flops.attention - flops.adapter

    assert 0 < kept(num_queries=4) < kept(num_queries=8) < row_flops(tiny_sdxl).unet
    assert kept(num_queries=4, layers_per_record=2) < kept(num_queries=4)
