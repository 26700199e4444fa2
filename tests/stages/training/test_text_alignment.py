"""Training in text space alone: no pass of the UNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pea.config import Config
from pea.models.unet import Teacher
from stages import train_adapter
from stages.command.console import Console
from tests.train_runs import log_rows, variant

TEXT_ONLY = {"noise_pred_weight": 0.0, "feature_weight": 0.0, "text_weight": 1.0, "culture_fraction": 0.0}


def no_unet(*_: Any) -> None:
    raise AssertionError("the UNet was asked")


@pytest.mark.slow
def test_alignment_asks_no_unet_and_comes_nearer_to_english(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = variant(tiny_sdxl, tmp_path, steps=12, **TEXT_ONLY)
    monkeypatch.setattr(Teacher, "forward", no_unet)
    assert train_adapter.run(config, Console(quiet=True))["skipped_steps"] == 0
    rows = log_rows(config)
    assert 0 < rows[-1]["text"] < 0.9 * rows[0]["text"]
    assert all(row["loss"] == row["text"] and row["noise_pred"] == row["diffusion"] == 0 for row in rows)


@pytest.mark.slow
def test_any_other_term_asks_the_unet(tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Teacher, "forward", no_unet)
    for setting in ({"noise_pred_weight": 1.0}, {"feature_weight": 0.1}, {"culture_fraction": 0.25}):
        config = variant(tiny_sdxl, tmp_path, **(TEXT_ONLY | setting))
        with pytest.raises(AssertionError, match="the UNet was asked"):
            train_adapter.run(config, Console(quiet=True))
