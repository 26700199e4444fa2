"""The warm start on cached queries: it learns, resumes bit for bit, and says what it lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from rich.console import Console
from safetensors.torch import load_file

from pea.adapter import PEA
from pea.attention_data import AttentionBatch
from pea.config import AttentionConfig, Config, TrainConfig
from pea.encoders import EnglishEncoder
from pea.errors import CacheError, TrainingError
from stages import train_adapter, train_attention
from tests.tiny_setup import fill_cache

QUIET = Console(quiet=True)
PHASE = {"attention_steps": 6, "attention_batch_size": 8, "attention_learning_rate": 1e-2, "steps": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def config(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("attention_phase")
    cache = tiny_sdxl.cache.model_copy(update={"attention": AttentionConfig(num_queries=4)})
    config = tiny_sdxl.model_copy(update={"run_dir": folder, "cache": cache})
    source = Path(tiny_sdxl.corpora.parallel.tars[0]).parent
    fill_cache(config, "parallel", source)
    fill_cache(config, "culture", source)
    return config


def variant(config: Config, folder: Path, **train: object) -> Config:
    """The same caches in a run folder of its own."""
    folder.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (folder / "cache").symlink_to(config.run_dir / "cache")
    settings = config.train.model_copy(update={**PHASE, **train})
    return config.model_copy(update={"run_dir": folder, "train": settings})


def rows(config: Config) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.adapter_dir / "attention_log.jsonl").read_text().splitlines()]


def test_the_warm_start_learns(config: Config, tmp_path: Path) -> None:
    longer = variant(config, tmp_path / "run", attention_steps=40)
    train_adapter.run(longer, QUIET)
    losses = [row["loss"] for row in rows(longer)]
    assert len(losses) == 40 and sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert (longer.adapter_dir / "config.json").exists()


def test_a_resumed_warm_start_equals_an_unbroken_one(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = variant(config, tmp_path / "whole"), variant(config, tmp_path / "broken")
    train_adapter.run(whole, QUIET)
    step = train_attention.AttentionPhase._optimizer_step

    def stop(phase: train_attention.AttentionPhase, batch: AttentionBatch) -> object:
        if phase.step == 5:
            raise KeyboardInterrupt
        return step(phase, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train_attention.AttentionPhase, "_optimizer_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train_adapter.run(broken, QUIET)
    done: list[int] = []

    def record(phase: train_attention.AttentionPhase, batch: AttentionBatch) -> object:
        done.append(phase.step)
        return step(phase, batch)

    monkeypatch.setattr(train_attention.AttentionPhase, "_optimizer_step", record)
    train_adapter.run(broken, QUIET)
    assert done == [4, 5]  # saved every 2 steps, broken off at 5
    assert [row["step"] for row in rows(broken)] == [1, 2, 3, 4, 5, 6]
    one, other = (load_file(c.adapter_dir / "diffusion_pytorch_model.safetensors") for c in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_needs_no_unet_no_vae_and_no_english_encoder_twice(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    english = EnglishEncoder.from_checkpoint

    def note(folder: Path, *given: object) -> EnglishEncoder:
        asked.append(folder.name)
        return english(folder, *given)  # type: ignore[arg-type]

    def refuse(*_given: object, **_named: object) -> None:
        raise AssertionError("a large model is loaded")

    monkeypatch.setattr(EnglishEncoder, "from_checkpoint", note)
    for kind in (UNet2DConditionModel, AutoencoderKL):
        monkeypatch.setattr(kind, "from_pretrained", refuse)
    shutil.rmtree(config.cache_dir("parallel").parent / "text_states", ignore_errors=True)
    for number in range(2):
        alone = variant(config, tmp_path / f"run{number}", steps=0, attention_steps=2)
        summary = train_adapter.run(alone, QUIET)
        assert summary["steps"] == 2 and summary["trained_parameters"] > 0
        assert PEA.load(alone.adapter_dir).config.cache_identity
    assert asked == ["teacher"]  # for the empty caption, once


def test_what_comes_after_does_not_repeat_a_finished_one(config: Config, tmp_path: Path) -> None:
    train_adapter.run(variant(config, tmp_path / "run"), QUIET)
    log = rows(variant(config, tmp_path / "run"))
    again = variant(config, tmp_path / "run", learning_rate=1e-3)
    started = load_file(sorted(again.adapter_dir.glob("attention_states/*/adapter.safetensors"))[-1])
    warm = train_attention.warm_start(again, Accelerator(cpu=True), QUIET)
    assert all(torch.equal(started[name], value) for name, value in warm.parameters.items())
    assert rows(again) == log
    other = variant(config, tmp_path / "run", attention_learning_rate=1e-3)
    warm = train_attention.warm_start(other, Accelerator(cpu=True), QUIET)
    assert not all(torch.equal(started[name], value) for name, value in warm.parameters.items())


def test_kept_text_states_change_no_bit(config: Config, tmp_path: Path) -> None:
    plain, kept = (variant(config, tmp_path / str(keep), keep_text_states=keep) for keep in (False, True))
    for each in (plain, kept):
        train_adapter.run(each, QUIET)
    one, other = (load_file(c.adapter_dir / "diffusion_pytorch_model.safetensors") for c in (plain, kept))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_text_loss_can_stand_beside_it(config: Config, tmp_path: Path) -> None:
    plain, beside = (
        train_attention.warm_start(
            variant(config, tmp_path / str(weight), attention_text_weight=weight), Accelerator(cpu=True), QUIET
        )
        for weight in (0.0, 1.0)
    )
    assert not all(torch.equal(plain.parameters[name], value) for name, value in beside.parameters.items())


def test_no_steps_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="steps=0 needs attention_steps"):
        TrainConfig(steps=0)


def test_a_cache_without_queries_is_refused(tiny_sdxl: Config, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"holds no attention queries.*Set cache\.attention"):
        train_adapter.run(variant(tiny_sdxl, tmp_path / "run"), QUIET)


def test_a_loss_that_is_not_finite_stops(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"attention step \d+.*attention_learning_rate"):
        train_adapter.run(variant(config, tmp_path / "run", attention_learning_rate=1e30), QUIET)


def test_rate_rises_then_falls_to_zero() -> None:
    rates = [train_attention.attention_rate(step, 40, 1.0) for step in range(40)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[-1] < 0.01
