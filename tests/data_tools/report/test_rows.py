"""Scores are told apart by their names, whatever scores them."""

from __future__ import annotations

from data_tools.report.answer import answers
from data_tools.report.rows import MEASURES, split_score
from pea.config import ScorersConfig
from pea.evaluation.scorers.choice import SCORERS
from pea.pipeline import card


def test_every_scorer_is_known_everywhere() -> None:
    names = {"", "clip", *ScorersConfig.model_fields}
    assert names == set(MEASURES) == set(card._KINDS) and set(ScorersConfig.model_fields) == set(SCORERS)
    for name in names:
        assert split_score(f"adapter.my.set.{name}".rstrip(".")) == ("adapter", "my.set", name)


def test_an_adapter_that_only_a_scorer_has_seen_has_an_answer() -> None:
    mean = {"mean": {"accuracy": 21.5, "low": 21.0, "high": 22.0, "n": 5}}
    (shown,) = answers({"adapter.general.pick_score": mean, "adapter.general.aesthetic": mean}, ["general"], ["zh"], {})
    assert "pick_score" in shown["label"] and "21.5" in shown["value"]
    both = answers({"adapter.general.pick_score": mean, "adapter.general.clip": mean}, ["general"], ["zh"], {})
    assert [("CLIP score" in each["label"]) for each in both] == [True]
