"""What a misspelt word may have meant."""

from __future__ import annotations

import pytest

from pea.config import valid_names
from pea.config.yaml_text import nearest_name
from pea.spelling import nearest

OPTIONS = ("--config", "--corpus", "--out", "--price", "--preset", "-h", "--extend", "--repair")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--confg", "--config"),
        ("--onfig", "--config"),
        ("config", "--config"),
        ("--corpora", "--corpus"),
        ("--ot", "--out"),
        ("--repiar", "--repair"),
        ("--force", None),
        ("--everything", None),
        ("", None),
    ],
)
def test_only_what_is_likely_is_meant(word: str, meant: str | None) -> None:
    assert nearest(word, OPTIONS) == meant


def test_of_nothing_nothing_is_meant() -> None:
    assert nearest("train", ()) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train.bach_size", "train.batch_size"),
        ("cache.num_workers", "train.num_workers"),
        ("rundir", "run_dir"),
        ("evaluate.prompt", "evaluate.prompts"),
        ("train.lr", None),
        ("train.gpus", None),
        ("train.force", None),
        ("train.dropout", None),
        ("cache.force", None),
        ("force", None),
    ],
)
def test_a_setting_is_not_guessed_from_its_section_alone(name: str, meant: str | None) -> None:
    assert nearest_name(name, valid_names()) == meant
