"""Training in groups of rows is the same training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pea.config import Config
from stages import train_adapter
from stages.command.console import Console
from stages.training import row_groups
from stages.training.row_groups import num_row_groups
from tests.train_runs import log_rows, same, variant, weights


@pytest.fixture
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch on two threads, and groups as small as the tests' batches need."""
    monkeypatch.setattr(row_groups, "MIN_ROWS", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def trained(config: Config, folder: Path, **options: Any) -> Config:
    """The setup after a short training."""
    options = {"steps": 4, "batch_size": 4, "culture_fraction": 0.25, "log_every_steps": 1, "seed": 5} | options
    config = variant(config, folder, **options)
    train_adapter.run(config, Console(quiet=True))
    return config


@pytest.mark.slow
@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("options", [{}, {"text_weight": 0.5, "gradient_accumulation_steps": 2}])
def test_groups_of_rows_give_the_losses_and_weights_of_the_whole_batch(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    grouped = trained(tiny_sdxl, tmp_path / "grouped", **options)
    again = trained(tiny_sdxl, tmp_path / "again", **options)
    monkeypatch.setattr(row_groups, "MIN_ROWS", 100)
    whole = trained(tiny_sdxl, tmp_path / "whole", **options)

    assert same(weights(grouped), weights(again))
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(grouped)[name], tensor, rtol=1e-4, atol=1e-6)
    for one, other in zip(log_rows(grouped), log_rows(whole), strict=True):
        for name in {*one} - {"seconds", "samples_per_s"}:
            assert math.isclose(one[name], other[name], rel_tol=1e-5), name


@pytest.mark.usefixtures("_two_threads")
def test_groups_are_for_one_process_on_a_cpu() -> None:
    assert num_row_groups(torch.device("cpu"), 1, 64) == 2
    assert num_row_groups(torch.device("cpu"), 1, 3) == 1
    assert num_row_groups(torch.device("cpu"), 2, 64) == 1
    assert num_row_groups(torch.device("cuda"), 1, 64) == 1
