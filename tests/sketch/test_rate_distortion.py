"""Rate against distortion of the adapter's gradient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pea.cache import Cache
from pea.config import Config, CountSketch, ExactSketch, resolved_yaml
from pea.errors import ConfigError
from pea.file_names import LORA_FILE
from pea.sketch.rate_distortion import GradientErrors, Point, recommend
from stages import sketch_measurements
from stages.cli import main
from stages.command.console import Console
from stages.sketch_measurements import SETTINGS, describe, measure
from stages.training.setup import prepare
from tests.train_runs import variant


def point(block: str, size: int, error: float, norm: float = 1.0) -> Point:
    return Point(block, CountSketch(kind="count"), size, 1000, 1 - error, error, norm)


def test_errors_vanish_for_an_exact_record_and_grow_with_the_ratio() -> None:
    torch.manual_seed(0)
    settings = [ExactSketch(kind="exact", dtype="float32"), *(CountSketch(kind="count", ratio=n) for n in (4, 64))]
    errors = GradientErrors(settings, seed=3)
    weight = torch.randn(6, 5, requires_grad=True)
    for first in (0, 64):
        text = torch.randn(64, 5)
        student = {"mid_block": (text @ weight.T)[:, :, None, None] * torch.randn(6, 8, 8)}
        teacher = {"mid_block": torch.randn(64, 6, 8, 8)}
        errors.add(student, teacher, np.arange(first, first + 64, dtype=np.uint64), [weight])
    exact, fine, coarse = errors.points()
    assert exact.relative_error < 1e-6 and exact.cosine == pytest.approx(1)
    assert 1e-3 < fine.relative_error < coarse.relative_error < 1.5
    assert (exact.ratio, fine.bytes_per_record) == (0.5, 2 * 128 + 4)
    assert fine.gradient_norm == exact.gradient_norm > 0


def test_records_of_several_buckets_count_each_with_its_own_sketch() -> None:
    torch.manual_seed(0)
    settings = [ExactSketch(kind="exact", dtype="float32"), CountSketch(kind="count", ratio=8)]
    weight = torch.randn(6, 5, requires_grad=True)
    batches = {}
    for first, (height, width) in ((0, (8, 8)), (64, (8, 16))):
        student = (torch.randn(64, 5) @ weight.T)[:, :, None, None] * torch.randn(6, height, width)
        ids = np.arange(first, first + 64, dtype=np.uint64)
        batches[width] = ({"mid_block": student}, {"mid_block": torch.randn(64, 6, height, width)}, ids, [weight])

    def points(*widths: int) -> list[Point]:
        errors = GradientErrors(settings, seed=3)
        for width in widths:
            errors.add(*batches[width])
        return errors.points()

    exact, sketched = points(8, 16)
    assert exact.relative_error < 1e-6 and 0 < sketched.relative_error < 1.5
    alone = {width: points(width) for width in batches}
    for number, both in enumerate((exact, sketched)):
        narrow, wide = alone[8][number], alone[16][number]
        assert (wide.fp16_bytes, both.fp16_bytes) == (2 * narrow.fp16_bytes, 1.5 * narrow.fp16_bytes)
        assert both.bytes_per_record == (narrow.bytes_per_record + wide.bytes_per_record) / 2
    assert points(16, 8)[1].relative_error == pytest.approx(sketched.relative_error)


def test_the_recommendation_spends_the_budget_where_it_helps_most() -> None:
    points = [point("a", 10, 0.5), point("a", 100, 0.1), point("b", 10, 0.5, norm=10), point("b", 100, 0.1, norm=10)]
    assert recommend(points, 19, {}) is None
    sizes = {block: p.bytes_per_record for block, p in (recommend(points, 120, {}) or {}).items()}
    assert sizes == {"a": 10, "b": 100}, "the block with the larger gradient"
    sizes = {block: p.bytes_per_record for block, p in (recommend(points, 120, {"b": 0.0}) or {}).items()}
    assert sizes == {"a": 100, "b": 10}, "a block without weight in the loss needs nothing"
    assert {p.bytes_per_record for p in (recommend(points, 1e9, {}) or {}).values()} == {100}


@pytest.mark.slow
def test_the_command_writes_table_figure_and_recommendation(
    tiny_sdxl: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [each for each in SETTINGS if describe(each) in ("exact float16", "fold 16x int8", "count 64x float16")]
    monkeypatch.setattr(sketch_measurements, "SETTINGS", few)
    config = tiny_sdxl.model_copy(update={"run_dir": tmp_path / "run"})
    config.run_dir.mkdir()
    (config.run_dir / "cache").symlink_to(tiny_sdxl.run_dir / "cache")
    (tmp_path / "c.yaml").write_text(resolved_yaml(config))
    assert main(["rd", "--config", str(tmp_path / "c.yaml"), "--records", "24", "--budget", "2000"]) == 0
    setup = prepare(config, torch.device("cpu"))
    shapes = {setup.data.batch(number).latents.shape[2:] for number in range(3)}
    assert len(shapes) == 2, "batches of both buckets are measured"
    found = json.loads((config.run_dir / "rate_distortion" / "rd.json").read_text())
    blocks = {each["block"] for each in found["points"]}
    cached = set(Cache.open(config.cache_dir("parallel")).identity.blocks)
    assert set(found["recommended"]) == blocks == {*cached, "noise_pred"}
    assert all(-1 <= each["cosine"] <= 1 and each["relative_error"] >= 0 for each in found["points"])
    assert (config.run_dir / "rate_distortion" / "rd.md").read_text().count("| mid_block |") == len(few) == 3
    assert (config.run_dir / "rate_distortion" / "rd.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "recommended for 2000 bytes a record" in out and "cache.noise_pred_sketch: {" in out


@pytest.mark.slow
def test_it_measures_the_trained_adapter_and_weighs_blocks_as_the_loss_does(tiny_sdxl: Config, tmp_path: Path) -> None:
    run = variant(tiny_sdxl, tmp_path, feature_scale="relative", block_weights={"mid_block": 3.0}, feature_weight=0.5)
    setup = prepare(run, torch.device("cpu"))
    setup.adapter.save_pretrained(run.adapter_dir)
    points, weights, facts = measure(run, Console(quiet=True), 8)
    assert facts["adapter"] == "trained" and len(points) == len(SETTINGS) * len(weights)
    (run.adapter_dir / LORA_FILE).write_bytes(b"")
    with pytest.raises(ConfigError, match="the UNet was trained as well"):
        measure(run, Console(quiet=True), 8)
    assert weights == {**setup.block_weights, "noise_pred": 2.0} and setup.block_weights["mid_block"] != 3.0
