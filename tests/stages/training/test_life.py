"""Life around training: time limits, the best adapter, pictures, trackers."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType
from PIL import Image

from pea.config import Config, TrainConfig
from pea.errors import ConfigError
from stages import train_adapter
from stages.command.console import Console
from stages.training.losses import BatchLosses
from stages.training.trackers import chosen_trackers
from tests.train_runs import log_rows, same, variant, weights

QUIET = Console(quiet=True)


@pytest.mark.slow
def test_a_run_ends_when_its_time_is_over_and_goes_on_with_more(tiny_sdxl: Config, tmp_path: Path) -> None:
    short = variant(tiny_sdxl, tmp_path / "short", steps=6, max_minutes=1e-9, save_every_steps=100)
    said = io.StringIO()
    summary = train_adapter.run(short, Console(file=said, width=200))
    assert "phase 1 (unet): ended after 1 of 6 steps, train.max_minutes is over\n" in said.getvalue()
    assert summary["steps"] == 1 and (short.adapter_dir / "config.json").exists()
    assert train_adapter.run(short, QUIET)["steps"] == 1, "its time is over already"
    longer = short.model_copy(update={"train": short.train.model_copy(update={"max_minutes": 60.0})})
    assert train_adapter.run(longer, QUIET)["steps"] == 6
    whole = variant(tiny_sdxl, tmp_path / "whole", steps=6)
    train_adapter.run(whole, QUIET)
    assert same(weights(whole), weights(longer))


@pytest.mark.slow
def test_a_run_ends_when_the_validation_loss_no_longer_falls(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lower once after a rise, then two measurements without: of six steps, five. It stays ended, and says so."""
    made_up = iter([3.0, 3.5, 2.0, 2.5, 2.0])
    original = BatchLosses.undisturbed

    def undisturbed(self: BatchLosses, batch: Any) -> Any:
        losses = original(self, batch)
        return type(losses)(torch.tensor(next(made_up)), losses.noise_pred, losses.blocks, losses.diffusion)

    monkeypatch.setattr(BatchLosses, "undisturbed", undisturbed)
    settings = {"validation_fraction": 0.3, "validate_every_steps": 1, "validation_batches": 1, "batch_size": 4}
    run = variant(tiny_sdxl, tmp_path, steps=6, patience=2, save_every_steps=100, **settings)
    said = io.StringIO()
    summary = train_adapter.run(run, Console(file=said, width=200))
    assert "ended after 5 of 6 steps, its validation loss no longer falls (train.patience)\n" in said.getvalue()
    assert (summary["steps"], summary["best_step"], summary["stopped_early"]) == (5, 3, True)
    before = weights(run)
    again = train_adapter.run(run, QUIET)  # measures nothing: no loss is left
    assert (again["steps"], again["best_step"], again["stopped_early"]) == (5, 3, True) and same(before, weights(run))


@pytest.mark.slow
def test_the_best_step_by_held_out_samples_is_published(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses go down for two steps and then up: the second step's adapter is published."""
    settings = {"validation_fraction": 0.3, "validate_every_steps": 1, "batch_size": 4}
    two = variant(tiny_sdxl, tmp_path / "two", steps=2, schedule="constant", **settings)
    train_adapter.run(two, QUIET)
    made_up = iter([3.0, 2.0, 2.5, 4.0])
    original = BatchLosses.undisturbed

    def undisturbed(self: BatchLosses, batch: Any) -> Any:
        losses = original(self, batch)
        return type(losses)(torch.tensor(next(made_up)), losses.noise_pred, losses.blocks, losses.diffusion)

    monkeypatch.setattr(BatchLosses, "undisturbed", undisturbed)
    four = variant(tiny_sdxl, tmp_path / "four", steps=4, schedule="constant", validation_batches=1, **settings)
    summary = train_adapter.run(four, QUIET)
    assert (summary["best_step"], summary["best_validation_loss"]) == (2, 2.0)
    assert [row["validation"] for row in log_rows(four, "validation_log")] == [3.0, 2.0, 2.5, 4.0]
    monkeypatch.undo()
    last_of_two = variant(tiny_sdxl, tmp_path / "last", steps=2, schedule="constant", **settings)
    assert train_adapter.run(last_of_two, QUIET)["best_step"] in (1, 2)
    values = json.loads((two.training_dir / "train_summary.json").read_text())
    if values["best_step"] == 2:
        assert same(weights(two), weights(four))


@pytest.mark.slow
def test_a_share_into_which_no_sample_falls_is_said(tiny_sdxl: Config, tmp_path: Path) -> None:
    """Few samples and a share of one in a hundred, as in the family files, train all the same."""
    config = variant(
        tiny_sdxl, tmp_path, steps=1, batch_size=2, culture_fraction=0.0, validation_fraction=1e-6, patience=1
    )
    console = Console(file=io.StringIO())
    assert train_adapter.run(config, console)["steps"] == 1
    assert "validation: none, no sample falls into a share of 1e-06; the run takes all" in console.file.getvalue()


@pytest.mark.slow
def test_the_measured_loss_is_that_of_the_held_out_samples(tiny_sdxl: Config, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"validation_fraction": 0.3, "validate_every_steps": 2, "batch_size": 4}
    runs = [variant(tiny_sdxl, tmp_path / name, ema_decay=0.5, **settings) for name in ("whole", "broken")]
    for run in runs:
        train_adapter.run(run, QUIET)
    whole, broken = runs
    shutil.rmtree(broken.training_dir / "states/step-00000004")
    train_adapter.run(broken, QUIET)
    assert log_rows(whole, "validation_log") == log_rows(broken, "validation_log")
    assert [row["step"] for row in log_rows(whole, "validation_log")] == [2, 4]
    assert same(weights(whole), weights(broken))
    plain = variant(tiny_sdxl, tmp_path / "plain", ema_decay=0.5, **(settings | {"validate_every_steps": 4}))
    train_adapter.run(plain, QUIET)
    assert [row["loss"] for row in log_rows(plain)] == [row["loss"] for row in log_rows(whole)], "measuring is all"


@pytest.mark.slow
def test_pictures_of_fixed_prompts(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = variant(tiny_sdxl, tmp_path, sample_every_steps=2, sample_prompts=("一只猫", "红球", "大狗"), steps=4)
    few = config.evaluate.model_copy(update={"num_inference_steps": 2, "guidance_scale": 2.0})
    train_adapter.run(config.model_copy(update={"evaluate": few}), QUIET)
    paths = sorted((config.training_dir / "samples").iterdir())
    assert [path.name for path in paths] == ["step-00000002.png", "step-00000004.png"]
    first, second = (np.asarray(Image.open(path)) for path in paths)
    assert first.shape == (16, 48, 3) and (first != second).any()
    plain = variant(tiny_sdxl, tmp_path / "plain")
    train_adapter.run(plain, QUIET)
    assert same(weights(config), weights(plain)), "drawing changes nothing"
    with pytest.raises(ValueError, match="sample_every_steps needs sample_prompts"):
        TrainConfig(sample_every_steps=1)


class _FakeTracker(GeneralTracker):
    name = "fake"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.settings: dict[str, Any] = {}
        self.finished = False

    @property
    def tracker(self) -> _FakeTracker:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.mark.slow
def test_trackers_get_the_rows_of_the_log(tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = _FakeTracker()
    monkeypatch.setattr(train_adapter, "chosen_trackers", lambda _: [tracker])
    config = variant(tiny_sdxl, tmp_path, validation_fraction=0.3, validate_every_steps=4)
    train_adapter.run(config, QUIET)
    rows = [{"step": step, **values} for step, values in tracker.rows]
    assert [row for row in rows if "loss" in row] == log_rows(config)
    assert [row for row in rows if "validation" in row] == log_rows(config, "validation_log")
    assert tracker.settings["train.batch_size"] == 8 and tracker.finished


@pytest.mark.slow
def test_weights_and_biases_by_name(tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site/wandb"
    package.mkdir(parents=True)
    (tmp_path / "site/wandb-0.1.dist-info").mkdir()
    (tmp_path / "site/wandb-0.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 0.1\n")
    (package / "__init__.py").write_text(
        "rows = []\n"
        "class config:\n    update = staticmethod(lambda *args, **options: None)\n"
        "class Run:\n"
        "    log = staticmethod(lambda values, step=None, **_: rows.append((step, values)))\n"
        "    finish = staticmethod(lambda: rows.append('finished'))\n"
        "def init(project, **_):\n    rows.append(project)\n    return Run\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr("accelerate.tracking._available_trackers", [LoggerType.WANDB])  # looked up at its import
    config = variant(tiny_sdxl, tmp_path, trackers=("wandb",), steps=2)
    try:
        train_adapter.run(config, QUIET)
        rows = sys.modules["wandb"].rows
    finally:
        sys.modules.pop("wandb", None)
    assert rows[0] == "run" and rows[-1] == "finished" and [row[0] for row in rows[1:-1]] == [1, 2]


def test_a_tracker_without_its_package_is_refused(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.training.trackers._AVAILABLE", {"tensorboard": lambda: False, "wandb": lambda: True})
    with pytest.raises(ConfigError, match=r"train\.trackers.*got tensorboard.*pip install tensorboard"):
        chosen_trackers(variant(tiny_sdxl, tmp_path, trackers=("tensorboard", "wandb")))


@pytest.mark.slow
def test_memory_of_a_gpu_is_reported(tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_adapter.run(variant(tiny_sdxl, tmp_path, steps=1), QUIET)["peak_gpu_memory_bytes"] == 0
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 if device.index == 1 else 0)
    assert train_adapter.peak_gpu_memory_bytes(torch.device("cuda", 1)) == 7
