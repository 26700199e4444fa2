"""What the page draws is what the commands draw, and what it cannot draw is said in one line."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.app.studio import Studio, Wish
from pea.errors import CheckpointError, ConfigError
from pea.evaluation.drawing import Drawer, image_seed
from pea.models.english import EnglishEncoder
from pea.pipeline import PEAPrompt
from stages import app
from tests.pipeline.pipes import make_parts
from tests.tiny_models import make_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_parts(tmp_path_factory.mktemp("app"), "sdxl")


@pytest.fixture(scope="module")
def studio(parts: Path) -> Studio:
    return Studio({"zh": PEAPrompt.from_pretrained(parts / "adapter")}, {"teacher": parts / "teacher"}, CPU)


@pytest.mark.slow
def test_three_images_of_one_noise(studio: Studio, parts: Path) -> None:
    wish = Wish("zh", "teacher", "一只猫", "a cat", "one animal cat", seed=3, steps=2, guidance=2.0)
    answer = studio.draw(wish)
    assert answer.notes == () and answer.adapter.shape == (16, 16, 3) and answer.adapter.dtype == np.uint8
    drawer = Drawer(parts / "teacher", CPU, num_inference_steps=2, guidance_scale=2.0)
    english, seed = EnglishEncoder.from_checkpoint(parts / "teacher"), [image_seed(3, "0")]
    for text, image in (("a cat", answer.teacher), ("one animal cat", answer.translation)):
        assert np.array_equal(drawer.draw(english.encode([text]), english.encode([""]), seed)[0], image)
    pea = studio.adapters["zh"]
    assert np.array_equal(drawer.draw(*pea.encode_both(["一只猫"], [""]), seed)[0], answer.adapter)
    assert not np.array_equal(answer.adapter, answer.teacher)
    again = studio.draw(replace(wish, seed=4, negative_prompt="小"))
    assert not np.array_equal(again.adapter, answer.adapter)


def test_what_is_not_asked_for_is_not_drawn_and_what_is_not_read_is_said(studio: Studio) -> None:
    answer = studio.draw(Wish("zh", "teacher", "一只猫狗红球大小雪草", english=" ", steps=1))
    assert answer.teacher is None and answer.translation is None
    assert len(answer.notes) == 1 and "lost of a prompt: '雪草'" in answer.notes[0]


def test_wrong_wishes_and_setups_are_one_line(studio: Studio, tmp_path: Path) -> None:
    for wish in (Wish("ja", "teacher", "x"), Wish("zh", "sd", "x"), Wish("zh", "teacher", "x", steps=0)):
        with pytest.raises(ConfigError):
            studio.draw(wish)
    with pytest.raises(ConfigError, match="nothing to show"):
        Studio({}, {}, CPU)
    with pytest.raises(CheckpointError, match="another shape"):
        Studio(studio.adapters, {"sd15": make_checkpoint(tmp_path / "sd15", "sd15")}, CPU)


def test_adapters_of_one_language_are_told_apart(studio: Studio) -> None:
    pea = studio.adapters["zh"]
    assert list(app.by_language([pea, pea, pea], ["runs/a", "runs/b", "other/b"])) == ["zh", "zh (b)", "zh (b, 2)"]


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "²"])
def test_ports(port: str) -> None:
    parser = argparse.ArgumentParser()
    app.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--adapter", "x", "--port", port])
