"""Phases without the UNet: they learn, resume bit for bit, need no large model, and say what they lack."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel

from pea.batches.attention_batches import AttentionBatch
from pea.config import Config, PhaseConfig
from pea.errors import CacheError, TrainingError
from pea.models.adapter import PEA
from pea.models.conditioning import on_device
from pea.models.english import EnglishEncoder
from pea.training.losses import text_distance
from stages import train_adapter
from stages.command.console import Console
from stages.training.caches import open_cache
from stages.training.phase import first_position
from stages.training.start import Start
from stages.training.text_tables import TextTables
from stages.training.without_unet import WithoutUnetPhase
from stages.training.without_unet_setup import prepare_without_unet
from tests.tiny_setup import with_queries
from tests.train_runs import log_rows, same, variant, weights

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
TEXT = PhaseConfig(kind="text", steps=3, batch_size=6)
ATTENTION = PhaseConfig(kind="attention", steps=4, batch_size=8, learning_rate=2e-3)
ERRORS = ("distance", "square")
UNET = PhaseConfig(kind="unet", steps=2, batch_size=4)


@pytest.fixture(scope="module")
def config(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny setup with a cache that holds queries."""
    return with_queries(tiny_sdxl, tmp_path_factory.mktemp("phases"))


def light_phase(config: Config) -> WithoutUnetPhase:
    """The first phase of a run, ready to begin."""
    cache = open_cache(config, "parallel")
    place = first_position(config, lambda: cache.num_samples)
    settings = place.settings(config)
    start = Start(settings, cache, TextTables(settings, CPU))
    setup = prepare_without_unet(settings, cache, start, CPU, with_queries=place.phase.kind == "attention")
    return WithoutUnetPhase(settings, place, setup, Accelerator(cpu=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "attention"])
def test_a_phase_without_the_unet_learns(config: Config, tmp_path: Path, kind: str) -> None:
    run = variant(config, tmp_path, phases=(PhaseConfig(kind=kind, steps=40, batch_size=8),))  # type: ignore[arg-type]
    summary = train_adapter.run(run, QUIET)
    losses = [row["loss"] for row in log_rows(run)]
    assert len(losses) == 40 and sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert summary["steps"] == 40 and summary["phases"][0]["kind"] == kind


@pytest.mark.slow
@pytest.mark.parametrize("broken_at", [2, 5, 8])
def test_a_run_of_phases_resumes_to_the_same_adapter(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    """Broken off in the first phase, in the second, and in the one with the UNet."""
    settings = {"phases": (TEXT, ATTENTION, UNET), "save_every_steps": 2, "log_every_steps": 2}
    whole, broken = variant(config, tmp_path / "whole", **settings), variant(config, tmp_path / "broken", **settings)
    train_adapter.run(whole, QUIET)
    keep, calls = torch.optim.AdamW.step, []

    def stop(self: torch.optim.AdamW, *given: object) -> object:
        calls.append(1)
        if len(calls) == broken_at + 1:
            raise KeyboardInterrupt
        return keep(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train_adapter.run(broken, QUIET)
    done: list[int] = []

    def count(self: torch.optim.AdamW, *given: object) -> object:
        done.append(1)
        return keep(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.AdamW, "step", count)
    must = broken.model_copy(update={"train": broken.train.model_copy(update={"resume": "must"})})
    summary = train_adapter.run(must, QUIET)
    assert len(done) == {2: 7, 5: 4, 8: 2}[broken_at], "of 9; saved after steps 2, 3, 5, 7 and 9"
    assert same(weights(whole), weights(broken)) and summary["steps"] == 9
    timeless = [
        [{name: value for name, value in row.items() if "_s" not in name and name != "seconds"} for row in log_rows(c)]
        for c in (whole, broken)
    ]
    assert timeless[0] == timeless[1]
    assert [(row["step"], row["phase"]) for row in timeless[0]] == [(2, 1), (3, 1), (5, 2), (7, 2), (9, 3)]


@pytest.mark.slow
def test_a_finished_phase_is_taken_up_while_nothing_before_it_or_in_it_changes(config: Config, tmp_path: Path) -> None:
    run = variant(config, tmp_path, phases=(TEXT, ATTENTION, UNET))
    steps: list[int] = []
    original = WithoutUnetPhase._optimizer_step

    def count(phase: WithoutUnetPhase, batch: AttentionBatch) -> None:
        steps.append(phase.position.number)
        original(phase, batch)

    def repeated(*phases: PhaseConfig, **changes: object) -> list[int]:
        steps.clear()
        train_adapter.run(variant(run, tmp_path, phases=phases, **changes), QUIET)
        return sorted(set(steps))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WithoutUnetPhase, "_optimizer_step", count)
        assert repeated(TEXT, ATTENTION, UNET) == [1, 2]
        assert repeated(TEXT, ATTENTION, UNET) == []
        assert repeated(TEXT, ATTENTION, UNET, diffusion_weight=2.0, text_perturbation=0.1) == []
        assert repeated(TEXT, ATTENTION) == [], "published as the second phase has left it"
        changed = ATTENTION.model_copy(update={"text_weight": 0.3})
        assert repeated(TEXT, changed, UNET) == [2]
        assert repeated(TEXT, changed, UNET, resume="never") == [1, 2]
        assert repeated(TEXT.model_copy(update={"learning_rate": 1e-3}), changed, UNET) == [1, 2]


@pytest.mark.slow
def test_they_need_no_unet_no_vae_and_no_english_encoder_twice(
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
        alone = variant(config, tmp_path / f"run{number}", phases=(TEXT, ATTENTION))
        summary = train_adapter.run(alone, QUIET)
        assert summary["steps"] == 7 and summary["trained_parameters"] > 0
        assert PEA.load(alone.adapter_dir).config.cache_identity
        assert "3 (text), 4 (attention)" in (alone.adapter_dir / "README.md").read_text()
    assert asked == ["teacher"]  # for the empty caption, once


@pytest.mark.slow
def test_english_texts_are_the_same_from_the_cache_and_from_the_encoder(
    config: Config, tiny_sdxl: Config, tmp_path: Path
) -> None:
    """The cache with queries keeps the texts too, in half precision."""
    cached, encoded = (light_phase(variant(each, tmp_path, phases=(TEXT,))) for each in (config, tiny_sdxl))
    for index in range(3):
        one, other = cached.setup.data.batch(index), encoded.setup.data.batch(index)
        assert one.native_captions == other.native_captions and not one.targets.queries and not other.targets.queries
        assert other.targets.english.encoder_hidden_states.shape[1] == 1, "averaged over the tokens"
        nothing = on_device([torch.zeros_like(part) for part in one.targets.english if part is not None], "cpu")
        assert (
            text_distance(one.targets.english, other.targets.english).max()
            < 1e-6 * text_distance(one.targets.english, nothing).min()
        )
    dropped = [text == "" for text in cached.setup.data.batch(0).native_captions]
    assert any(dropped) and not all(dropped)


@pytest.mark.slow
def test_a_text_phase_lowers_the_distance_or_its_square(config: Config, tmp_path: Path) -> None:
    light = {each: light_phase(variant(config, tmp_path, phases=(TEXT,), text_error=each)) for each in ERRORS}
    batch = light["square"].setup.data.batch(0)
    squares, distances = (
        {name: loss.item() for name, loss in light[each]._losses(batch).items()} for each in ("square", "distance")
    )
    assert squares["loss"] == squares["text"] == distances["text"]
    assert 0 < distances["loss"] < 0.9999 * squares["text"] ** 0.5, "the mean of roots, row by row"


@pytest.mark.slow
def test_kept_text_states_change_no_bit(config: Config, tiny_sdxl: Config, tmp_path: Path) -> None:
    for name, each, phases in (("queries", config, (TEXT, ATTENTION)), ("none", tiny_sdxl, (TEXT, UNET))):
        runs = [
            variant(each, tmp_path / f"{name}{keep}", phases=phases, keep_text_states=keep, text_weight=0.1)
            for keep in (False, True)
        ]
        for run in runs:
            train_adapter.run(run, QUIET)
        assert same(weights(runs[0]), weights(runs[1]))


@pytest.mark.slow
def test_the_text_loss_can_stand_beside_the_attention_loss(config: Config, tmp_path: Path) -> None:
    phases = [PhaseConfig(kind="attention", batch_size=8, text_weight=weight) for weight in (0.0, 0.5)]
    plain, beside = (light_phase(variant(config, tmp_path, phases=(phase,))) for phase in phases)
    batch = plain.setup.data.batch(0)
    one, other = plain._losses(batch), beside._losses(batch)
    assert "text" not in one and other["attention"] == one["attention"]
    assert other["loss"].item() == pytest.approx(one["loss"].item() + 0.5 * other["text"].item(), rel=1e-6)


@pytest.mark.slow
def test_time_may_be_over_in_any_phase(config: Config, tmp_path: Path) -> None:
    whole = variant(config, tmp_path / "whole", phases=(TEXT, UNET))
    train_adapter.run(whole, QUIET)
    short = variant(config, tmp_path / "short", phases=(TEXT, UNET), max_minutes=1e-9)
    said = io.StringIO()
    summary = train_adapter.run(short, Console(file=said, width=200))
    assert "phase 1 (text): ended after 1 of 3 steps, train.max_minutes is over\n" in said.getvalue()
    assert [phase["kind"] for phase in summary["phases"]] == ["text"] and summary["steps"] == 1
    card = (short.adapter_dir / "README.md").read_text("utf-8")
    assert "| captions of parallel samples | " in card and "teacher's answers" not in card, "no answer was read"
    assert "culture" not in card and "skipped" not in card
    assert PEA.load(short.adapter_dir).config.cache_identity
    longer = short.model_copy(update={"train": short.train.model_copy(update={"max_minutes": 60.0})})
    assert train_adapter.run(longer, QUIET)["steps"] == 5
    assert same(weights(whole), weights(longer))


def test_there_must_be_something_to_resume(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot resume phase 1 \(text\).*no saved state"):
        train_adapter.run(variant(config, tmp_path, phases=(TEXT, UNET), resume="must"), QUIET)


@pytest.mark.slow
def test_a_cache_without_queries_is_refused(tiny_sdxl: Config, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"holds no attention queries.*Set cache\.attention"):
        train_adapter.run(variant(tiny_sdxl, tmp_path, phases=(ATTENTION,)), QUIET)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops(config: Config, tmp_path: Path) -> None:
    phase = ATTENTION.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"phase 2 \(attention\), step \d.*learning_rate"):
        train_adapter.run(variant(config, tmp_path, phases=(TEXT, phase)), QUIET)
