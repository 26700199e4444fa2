"""``train.init_from``: a run that starts from an adapter."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pea.cache import Cache
from pea.config import Config, PhaseConfig
from pea.errors import CheckpointError
from pea.models.adapter import PEA
from pea.models.tensor_files import digest_of
from stages import train_adapter
from stages.command.console import Console
from stages.command.preflight import preflight, preflight_plan
from stages.training.fingerprints import differing_settings, fingerprint_with_unet, fingerprint_without_unet
from tests.tiny_models import make_checkpoint, make_native_encoder
from tests.train_runs import same, variant, weights

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
STILL = {"learning_rate": 1e-30, "weight_decay": 0.0, "steps": 1}


@pytest.fixture(scope="module")
def first(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A finished run."""
    config = variant(tiny_sdxl, tmp_path_factory.mktemp("first"), phases=(PhaseConfig(kind="text", steps=2),), seed=3)
    train_adapter.run(config, QUIET)
    return config


@pytest.mark.parametrize("phases", [(), (PhaseConfig(kind="text", steps=1),)])
def test_a_run_starts_where_the_other_ended(first: Config, tmp_path: Path, phases: tuple[PhaseConfig, ...]) -> None:
    config = variant(first, tmp_path, **STILL | {"phases": phases, "init_from": first.adapter_dir, "seed": 0})
    summary = train_adapter.run(config, QUIET)
    assert same(weights(config), weights(first)), "learning nothing, it ends there as well"
    assert summary["init_from"] == {"name": "adapter", "tensors": digest_of(first.adapter_dir)}
    plain = variant(first, tmp_path / "plain", **STILL | {"phases": phases, "seed": 0})
    assert "init_from" not in train_adapter.run(plain, QUIET) and not same(weights(plain), weights(first))


def test_the_start_decides_the_result_by_content(first: Config, tmp_path: Path) -> None:
    shutil.copytree(first.adapter_dir, tmp_path / "copy")
    other = PEA.load(first.adapter_dir)
    with torch.no_grad():
        other.layernorm.weight.add_(1)
    other.save_pretrained(tmp_path / "other")
    cache = Cache.open(first.cache_dir("parallel"))

    def fingerprints(start: Path | None) -> list[dict[str, Any]]:
        config = variant(first, tmp_path, init_from=start)
        return [
            fingerprint_with_unet(config, cache, None, [], 1),
            fingerprint_without_unet(config, cache, config.train.all_phases, 1),
        ]

    saved = fingerprints(first.adapter_dir)
    for start, differing in ((tmp_path / "copy", []), (tmp_path / "other", ["init_from"]), (None, ["init_from"])):
        for before, now in zip(saved, fingerprints(start), strict=True):
            assert differing_settings(before, now) == differing


def changed(folder: Path, place: Path, **settings: Any) -> Path:
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | settings))
    return place


def test_another_adapter_is_refused_before_anything_is_spent(first: Config, tmp_path: Path) -> None:
    own = first.adapter_dir
    record = PEA.load(own).config.encoder
    sizes = PEA(16, 32, 12, hidden_size=24, num_layers=3, encoder=record)
    sizes.save_pretrained(tmp_path / "sizes")
    narrow = PEA(24, 32, 12, hidden_size=16, encoder=record)
    narrow.save_pretrained(tmp_path / "narrow")
    shape = PEA(16, 16, None, hidden_size=16, encoder=record)
    shape.save_pretrained(tmp_path / "shape")
    lora = changed(own, tmp_path / "lora")
    (lora / "pytorch_lora_weights.safetensors").write_bytes(b"")
    predicts = changed(own, tmp_path / "predicts", prediction_type="v_prediction")
    for start, words in (
        (
            tmp_path / "sizes",
            "other sizes than this run's; expected hidden_size 16, num_layers 2; got hidden_size 24",
        ),
        (tmp_path / "narrow", "other sizes than this run's; expected input_dim 16; got input_dim 24"),
        (tmp_path / "shape", "a diffusion model of another shape"),
        (predicts, "a diffusion model of another prediction type"),
        (lora, "goes with a UNet that was trained as well"),
        (tmp_path / "absent", "no adapter here"),
    ):
        config = variant(first, tmp_path / "run", init_from=start)
        with pytest.raises(CheckpointError, match=re.escape(words)) as caught:
            train_adapter.run(config, QUIET)
        assert "\n" not in str(caught.value) and not config.adapter_dir.exists()
        if start.exists():
            with pytest.raises(CheckpointError, match=re.escape(words)):
                preflight(config)
        else:
            assert preflight(config) == [f"train.init_from: {start} is not there yet"]


def test_another_encoder_is_refused_and_another_base_model_named(first: Config, tmp_path: Path) -> None:
    encoder = make_native_encoder(tmp_path / "other", seed=5)
    student = first.student.model_copy(update={"encoder": encoder})
    config = variant(first, tmp_path, init_from=first.adapter_dir).model_copy(update={"student": student})
    with pytest.raises(CheckpointError, match="the adapter was trained for another text encoder"):
        train_adapter.run(config, QUIET)
    tuned = make_checkpoint(tmp_path / "tuned", "sdxl", seed=5)
    teacher = first.teacher.model_copy(update={"checkpoint": tuned})
    config = variant(first, tmp_path, init_from=first.adapter_dir).model_copy(update={"teacher": teacher})
    with pytest.warns(UserWarning, match="tuned: its UNet has other weights than that of teacher"):
        assert preflight(config) == []
    absent = config.teacher.model_copy(update={"checkpoint": tmp_path / "absent"})
    assert preflight_plan(config.model_copy(update={"teacher": absent}), with_teacher=False)
