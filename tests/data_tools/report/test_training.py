"""The terms of a loss chart add up to its total, whatever the phase."""

from __future__ import annotations

import pytest

from data_tools.report.training import contributions
from pea.config import TrainConfig


def test_the_terms_of_an_attention_phase_add_up() -> None:
    row = {"loss": 2.0 + 0.3 + 0.5 * 4.0, "attention": 2.0, "pooled": 0.3, "text": 4.0}
    added = contributions(row, TrainConfig(text_weight=0.5), "attention")
    assert sum(added.values()) == pytest.approx(row["loss"]) and len(added) == 3
    assert len(contributions(row, TrainConfig(text_weight=0.0), "attention")) == 2


def test_a_text_phase_has_its_total_alone() -> None:
    assert contributions({"loss": 0.2, "text": 0.05}, TrainConfig(), "text") == {}
