"""The recommended rate and length: the stated rule, and never over a number that is given."""

from __future__ import annotations

import pytest

from pea.config import Phase, TrainConfig
from pea.training.recipe import num_steps, peak_learning_rate, with_recipe


def test_the_rate_grows_with_the_root_of_the_batch_and_falls_with_the_width() -> None:
    assert peak_learning_rate(64, 512) == 2e-3
    assert peak_learning_rate(16, 512) == 1e-3 and peak_learning_rate(64, 1024) == 1e-3
    assert peak_learning_rate(256, 1024) == peak_learning_rate(4096, 1024) == 2e-3


def test_the_length_grows_with_the_root_of_the_corpus() -> None:
    assert num_steps(64, 4096) == 800 and num_steps(16, 4096) == 3200
    assert num_steps(64, 4 * 4096) == 1600 and num_steps(10_000_000, 1) == 1


def test_what_is_left_out_is_filled_in_and_what_is_given_stays() -> None:
    train = TrainConfig(batch_size=8, gradient_accumulation_steps=2)
    unet = with_recipe(Phase("unet", train), 512, 4, lambda: 4096).train
    assert (unet.learning_rate, unet.steps) == (2e-3, 800)
    text = with_recipe(Phase("text", train), 512, 4, lambda: 4096).train
    assert (text.learning_rate, text.steps) == (pytest.approx(1.414e-3), 1600), "no batches are gathered there"
    given = TrainConfig(learning_rate=1e-5, steps=7)
    assert with_recipe(Phase("unet", given), 512, 1, lambda: 1 // 0).train == given
