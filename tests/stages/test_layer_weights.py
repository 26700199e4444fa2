"""Weights of cross-attention layers by the teacher's sensitivity to them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pea.config import Config, load_config, resolved_yaml
from pea.models.unet import Teacher, layer_names
from stages.layer_weights import main, measure
from tests.train_runs import variant


@pytest.mark.slow
def test_a_layer_that_reaches_nothing_has_no_weight(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Teacher.from_checkpoint.__func__  # type: ignore[attr-defined]
    first: list[str] = []

    def without_first(*given: object, **named: object) -> Teacher:
        teacher: Teacher = load(*given, **named)
        first[:] = layer_names(teacher.unet)[:1]
        # What it adds is taken away again: its output goes through a projection of zeros.
        block = teacher.unet.get_submodule(first[0].rpartition(".transformer_blocks")[0])
        torch.nn.init.zeros_(block.proj_out.weight)
        return teacher

    monkeypatch.setattr(Teacher, "from_checkpoint", classmethod(without_first))
    found = measure(variant(tiny_sdxl, tmp_path), 8)
    assert found[first[0]].sensitivity == 0 and found[first[0]].mean_square > 0
    assert all(each.sensitivity > 0 for name, each in found.items() if name != first[0])


@pytest.mark.slow
def test_the_file_is_one_of_settings(tiny_sdxl: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "c.yaml", tmp_path / "weights.yaml"
    path.write_text(resolved_yaml(variant(tiny_sdxl, tmp_path)))
    words = ["--config", str(path), "--records", "6", "--out", str(out)]
    assert main(words) == 0
    weights = load_config([path, out]).train.attention_layer_weights
    assert set(weights) == set(measure(load_config(path), 6))
    assert sum(weights.values()) / len(weights) == pytest.approx(1.0, rel=1e-3)
    assert main([*words, "--by", "mean_square"]) == 0
    assert load_config([path, out]).train.attention_layer_weights != weights
    assert main(["--config", str(path), "--out", str(out), "run_dir=/nowhere", "cache_root=null"]) == 2
    assert "pea: error:" in capsys.readouterr().err
