"""The attention benchmark runs at a published model's real shapes, and counts what the formula gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pea.attention.queries import QueryLayout
from pea.config import AttentionConfig
from pea.costs.attention import attention_flops
from pea.models.unet import unet_config
from pea.models.unet_shapes import query_shapes
from tests.benchmarks import bench_attention
from tests.tiny_models import make_checkpoint


@pytest.mark.slow
def test_arithmetic_is_that_of_the_matrix_products(tmp_path: Path) -> None:
    unet = unet_config(make_checkpoint(tmp_path / "sd15", "sd15"))
    layout = QueryLayout(query_shapes(unet, (8, 8)), (12, 16), None, AttentionConfig(num_queries=4))
    counted = attention_flops(unet, layout)
    expected = 0
    for _, width in layout.positions.values():
        project = 2 * 12 * 16 * width  # one text through one matrix
        score, out = 2 * 4 * 12 * width, 2 * 4 * width * width
        forward = 2 * project + 2 * score + out
        backward = 2 * project + out  # to the text; through scores and values below
        expected += 2 * forward + backward
    assert expected < counted < 1.3 * expected
    half = QueryLayout(layout.positions, layout.text_shape, None, AttentionConfig(num_queries=4, layers_per_record=2))
    kept = {group.shape: group.num_kept / len(group.layers) for group in half.groups}
    assert attention_flops(unet, half) == pytest.approx(
        sum(
            kept[4, width] * attention_flops(unet, QueryLayout({name: shape}, (12, 16), None, layout.config))
            for name, shape in layout.positions.items()
            for width in [shape[1]]
        )
    )


@pytest.mark.slow
def test_it_measures_and_publishes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "attention.json"
    assert bench_attention.main(["--rounds", "2", "--batch-size", "2", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert len(result["measured"]["step_s"]) == 2 and result["measured"]["peak_gib"] > 0.1
    assert result["measured"]["frozen_parameters"] == 31_572_160
    tflop = result["tflop"]
    assert tflop["attention phase, 8 layers a record"] < tflop["attention phase, all 16 layers"]
    assert tflop["student pass from the cache"] < tflop["online distillation"]
    assert "| seconds a record |" in capsys.readouterr().out
