"""What decides the result of a phase, compared with a state that an older version saved."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from pea.cache import Cache
from pea.cache.takedown import remove_samples
from pea.config import Config, PhaseConfig
from stages.training.fingerprints import differing_settings, fingerprint_with_unet, fingerprint_without_unet
from tests.train_runs import variant


@pytest.fixture
def current(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    phases = (PhaseConfig(kind="text", steps=2), PhaseConfig(kind="unet", steps=2))
    config = variant(tiny_sdxl, tmp_path_factory.mktemp("run"), phases=phases)
    cache, (text, unet) = Cache.open(tiny_sdxl.cache_dir("parallel")), config.train.all_phases
    return fingerprint_with_unet(config.model_copy(update={"train": unet.train}), cache, None, [text], 1)


def test_settings_that_are_newer_than_a_state_had_their_defaults_then(current: dict[str, Any]) -> None:
    saved = copy.deepcopy(current)
    del saved["train"]["attention_queries"], saved["train"]["culture_timesteps"], saved["phases"][0]["precision"]
    assert differing_settings(saved, current) == []
    assert differing_settings(saved, current | {"train": current["train"] | {"attention_queries": "student"}}) == [
        "train.attention_queries"
    ]


def test_a_state_from_before_the_error_of_the_velocity_has_that_of_the_prediction(current: dict[str, Any]) -> None:
    saved = copy.deepcopy(current)
    del saved["train"]["diffusion_error"]
    assert differing_settings(saved, current) == ["train.diffusion_error"]
    former = current | {"train": current["train"] | {"diffusion_error": "prediction"}}
    assert differing_settings(saved, former) == []


def test_what_differs_is_named(current: dict[str, Any]) -> None:
    saved = copy.deepcopy(current)
    saved["train"]["steps"], saved["train"]["gone"] = 77, 1
    saved["phases"][0]["steps"] = 5
    assert differing_settings(saved, current) == ["phases", "train.gone", "train.steps"]
    assert differing_settings(current | {"phases": []}, current) == ["phases"]


def test_timesteps_decide_an_attention_phase_and_no_text_phase(tiny_sdxl: Config, tmp_path: Any) -> None:
    cache = Cache.open(tiny_sdxl.cache_dir("parallel"))

    def fingerprint(kind: Any, **train: Any) -> dict[str, Any]:
        config = variant(tiny_sdxl, tmp_path, phases=(PhaseConfig(kind=kind, steps=2),), **train)
        return fingerprint_without_unet(config, cache, config.train.all_phases, 1)

    for kind, differing in (("text", []), ("attention", ["phases"])):
        assert differing_settings(fingerprint(kind), fingerprint(kind, timesteps=(0, 500))) == differing


def test_an_encoder_counts_by_content(tiny_sdxl: Config, tmp_path: Path) -> None:
    """Files beside it do not; states from before tensors were looked at knew the folder's digest alone."""
    shutil.copytree(tiny_sdxl.student.encoder, tmp_path / "zh")
    config = variant(tiny_sdxl, tmp_path, phases=(PhaseConfig(kind="text", steps=2),))
    config = config.model_copy(update={"student": config.student.model_copy(update={"encoder": tmp_path / "zh"})})
    cache = Cache.open(tiny_sdxl.cache_dir("parallel"))

    def fingerprint() -> dict[str, Any]:
        return fingerprint_without_unet(config, cache, config.train.all_phases, 1)

    saved = fingerprint()
    former = copy.deepcopy(saved)
    former["student"]["encoder"] = former["student"].pop("encoder_folder")
    assert differing_settings(former, fingerprint()) == []
    (tmp_path / "zh/pytorch_model.bin").write_text("the same once more")
    assert differing_settings(saved, fingerprint()) == []
    tensors = load_file(tmp_path / "zh/model.safetensors")
    tensors["text_model.embeddings.word_embeddings.weight"][3, 0] += 1
    save_file(tensors, tmp_path / "zh/model.safetensors", metadata={"format": "pt"})
    for state in (saved, former):
        assert differing_settings(state, fingerprint()) == ["student.encoder"]


@pytest.mark.slow
def test_a_takedown_since_a_state_was_saved_is_named(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = variant(tiny_sdxl, tmp_path)
    shutil.copytree(tiny_sdxl.cache_dir("parallel"), tmp_path / "cache")
    cache = Cache.open(tmp_path / "cache")
    saved = [
        fingerprint_with_unet(config, cache, None, [], 1),
        fingerprint_without_unet(config, cache, [], 1),
    ]
    shard = cache.shards[0]
    key = next(iter(shard.buckets.values())).keys[0]
    remove_samples(cache, shard.tar, [key])
    cache = Cache.open(tmp_path / "cache")
    for before, now in zip(
        saved,
        (
            fingerprint_with_unet(config, cache, None, [], 1),
            fingerprint_without_unet(config, cache, [], 1),
        ),
        strict=True,
    ):
        assert differing_settings(before, now) == ["samples_taken_down"]
