"""Phases that runs have in common are trained once, and what they leave is what each run alone would have had."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.config import Config, PhaseConfig
from stages import train_adapter
from stages.command.console import Console
from stages.sweep_phases import keep_finished_phases, take_finished_phases
from stages.training.phase import states_folder
from stages.training.without_unet import WithoutUnetPhase
from tests.train_runs import same, variant, weights

TEXT = PhaseConfig(kind="text", steps=3, batch_size=6)
LONGER = PhaseConfig(kind="text", steps=4, batch_size=6)
UNET = PhaseConfig(kind="unet", steps=2, batch_size=4)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The phase's number for each optimizer step without the UNet."""
    done: list[int] = []
    original = WithoutUnetPhase._optimizer_step

    def count(phase: WithoutUnetPhase, batch: object) -> None:
        done.append(phase.position.number)
        original(phase, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(WithoutUnetPhase, "_optimizer_step", count)
    return done


def shared_run(config: Config, store: Path) -> dict[str, float]:
    take_finished_phases(config, store)
    summary = train_adapter.run(config, Console(quiet=True))
    keep_finished_phases(config, store)
    return summary


@pytest.mark.slow
def test_common_phases_are_trained_once_and_count_in_full(tiny_sdxl: Config, tmp_path: Path, steps: list[int]) -> None:
    store = tmp_path / "shared"
    first = shared_run(variant(tiny_sdxl, tmp_path / "a", phases=(TEXT, UNET)), store)
    assert steps == [1, 1, 1]
    other = variant(tiny_sdxl, tmp_path / "b", phases=(TEXT, UNET), diffusion_weight=3.0, culture_fraction=0.5)
    second = shared_run(other, store)
    assert steps == [1, 1, 1], "taken from the first run"
    assert second["steps"] == 5 and second["phases"][0] == first["phases"][0]  # type: ignore[index]
    alone = variant(other, tmp_path / "alone")
    train_adapter.run(alone, Console(quiet=True))
    assert same(weights(alone), weights(other))
    steps.clear()
    for number, changes in enumerate(({"seed": 1}, {"weight_decay": 0.5}, {"phases": (LONGER, UNET)})):
        shared_run(variant(other, tmp_path / f"changed{number}", **changes), store)
    assert len(steps) == 3 + 3 + 4, "a setting that decides the phase makes another one of it"


def test_a_run_that_has_begun_keeps_its_own_states(tiny_sdxl: Config, tmp_path: Path) -> None:
    store, run = tmp_path / "shared", variant(tiny_sdxl, tmp_path / "a", phases=(TEXT, UNET))
    own = states_folder(run, 1, "text")
    take_finished_phases(run, store)
    assert not own.exists()
    (own / "step-00000003").mkdir(parents=True)
    keep_finished_phases(run, store)
    again = variant(tiny_sdxl, tmp_path / "b", phases=(TEXT, UNET))
    take_finished_phases(again, store)
    assert (states_folder(again, 1, "text") / "step-00000003").is_dir()
    (own / "mine").mkdir()
    take_finished_phases(run, store)
    keep_finished_phases(run, store)
    assert (own / "mine").is_dir() and len(list(store.glob("*/*"))) == 1
