"""Phases in the configuration: what they leave out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.config import load_config, resolved_yaml, valid_names
from pea.errors import ConfigError
from pea.training.schedule import learning_rate
from tests.config.test_config import MINIMAL


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def test_a_run_is_text_alignment_and_the_unet_and_without_phases_the_unet_alone(minimal: Path) -> None:
    both = load_config(minimal, ["train.steps=7"]).train.all_phases
    assert [(each.kind, each.train.steps) for each in both] == [("text", 7), ("unet", 7)]
    [phase] = load_config(minimal, ["train.steps=7", "train.phases=[]"]).train.all_phases
    assert phase == both[1]


def test_a_cache_with_queries_is_asked_for_them_before_the_unet(minimal: Path, tmp_path: Path) -> None:
    queries = "cache.attention={num_queries: 4}"
    phases = load_config(minimal, [queries, "train.steps=7"]).train.all_phases
    assert [(kind, train.steps) for kind, train in phases] == [("text", 7), ("attention", 7), ("unet", 7)]
    assert load_config(minimal, [queries, "train.phases=[]"]).train.phases == ()
    assert [kind for kind, _ in load_config(minimal, [queries, "train.phases=[{kind: text}]"]).train.all_phases] == [
        "text"
    ]
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(load_config(minimal, [queries])), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == load_config(minimal, [queries])


@pytest.mark.parametrize(
    "setting",
    [
        "train.phases=[{kind: attention}]",
        "train.attention_weight=0.3",
        "train.phases=[{kind: unet, attention_weight: 1.0}]",
    ],
)
def test_queries_that_no_cache_keeps_are_not_asked_for(minimal: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"got train asks for queries .* and cache\.attention keeps none$"):
        load_config(minimal, [setting])


def test_what_a_phase_leaves_out_is_as_in_train(minimal: Path, tmp_path: Path) -> None:
    phases = "[{kind: text, steps: 9, learning_rate: 5.0e-3}, {kind: attention, text_weight: 0.3}, {kind: unet}]"
    given = [f"train.phases={phases}", "train.steps=7", "train.weight_decay=0.5", "cache.attention={num_queries: 4}"]
    config = load_config(minimal, given)
    text, attention, unet = config.train.all_phases
    assert [each.kind for each in (text, attention, unet)] == ["text", "attention", "unet"]
    assert (text.train.steps, text.train.learning_rate, text.train.text_weight) == (9, 5e-3, 0.0)
    assert (attention.train.steps, attention.train.learning_rate, attention.train.text_weight) == (7, None, 0.3)
    assert unet.train == config.train.model_copy(update={"phases": ()})
    assert {each.train.weight_decay for each in (text, attention, unet)} == {0.5}
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == config
    assert "train.phases.kind" in valid_names()


@pytest.mark.parametrize(
    ("phases", "problem"),
    [
        ("[{kind: unet}, {kind: text}]", "a phase of kind unet can only be the last one"),
        ("[{kind: unet}, {kind: unet}]", "a phase of kind unet can only be the last one"),
        ("[{kind: text, text_weight: 1.0}]", "text_weight has no meaning in a phase of kind text"),
        ("[{kind: attention, culture_fraction: 0.5}]", "culture_fraction has no meaning in a phase of kind attention"),
        ("[{kind: text, timesteps: [0, 500]}]", "timesteps has no meaning in a phase of kind text"),
        ("[{kind: attention, timesteps: [500, 500]}]", "the first timestep has to be below the second"),
        ("[{kind: text, stepz: 3}]", r"unknown key train\.phases\.0\.stepz \(did you mean train\.phases\.steps\?\)"),
        ("[{kind: text, steps: 0}]", r"train\.phases\.0\.steps: input should be greater than 0"),
        ("[{steps: 3}]", r"train\.phases\.0\.kind is missing"),
        ("[{kind: image}]", r"train\.phases\.0\.kind: input should be 'text', 'attention' or 'unet'"),
        ("{kind: text}", r"train\.phases: input should be a valid array"),
    ],
)
def test_what_is_wrong_is_said(minimal: Path, phases: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(minimal, [f"train.phases={phases}"])


@pytest.mark.parametrize("setting", ["train.method=lora", "train.ema_decay=0.9"])
def test_what_needs_the_unet_is_refused_without_it(minimal: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match="needs a phase of kind unet"):
        load_config(minimal, ["train.phases=[{kind: text}]", setting])


def test_the_rate_rises_then_stays_or_falls_to_zero(minimal: Path) -> None:
    settings = ["train.steps=40", "train.warmup_steps=2", "train.learning_rate=1.0"]
    cosine, constant = (load_config(minimal, [*settings, f"train.schedule={s}"]).train for s in ("cosine", "constant"))
    rates = [learning_rate(step, cosine) for step in range(41)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates == [0.5, *sorted(rates[1:], reverse=True)]
    assert rates[40] == pytest.approx(0.0, abs=1e-9)
    assert [learning_rate(step, constant) for step in (0, 1, 39)] == [0.5, 1.0, 1.0]
