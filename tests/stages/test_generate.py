"""`pea generate`: pictures of prompts, with a configuration or without, that say what made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pea.config import Config, resolved_yaml
from stages import generate
from stages.cli import main
from stages.command.console import Console
from tests.pictures import size_of

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def config(evaluated_config: Config) -> Config:
    return evaluated_config


def test_generate(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "setup.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    out = tmp_path / "out"
    argv = ["一只猫", "红球/上", "--config", str(path), "--out", str(out), "--num-images", "2"]
    assert generate.main([*argv, "--set", "evaluate.num_inference_steps=1"]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "000-一只猫.png",
        "001-一只猫.png",
        "002-红球-上.png",
        "003-红球-上.png",
    ]
    assert size_of(out / "000-一只猫.png") == (16, 16)
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert generate.main(["一只猫", *argv[2:6], "--seed", "9", "--set", "evaluate.num_inference_steps=1"]) == 0
    assert all(path.read_bytes() == data for path, data in before.items()), "images of an earlier call stay"
    assert sorted({path.name for path in out.iterdir()} - {path.name for path in before}) == ["004-一只猫.png"]


def test_generate_takes_settings_as_other_commands_do(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, over = tmp_path / "setup.yaml", tmp_path / "over.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    over.write_text("evaluate: {guidance_scale: 4}")
    drawn: list[tuple[Config, list[str]]] = []
    monkeypatch.setattr(generate, "run", lambda config, _, prompts, *__, **___: drawn.append((config, prompts)))
    files = ["--config", str(path), "--config", str(over)]
    words = ["a=b", "run_dir=x", "cat", "--out", "y", "evaluate.num_inference_steps=7", "--set", "evaluate.seed=3"]
    assert main(["generate", *files, *words]) == 0
    [(found, prompts)] = drawn
    assert prompts == ["a=b", "cat"], "a is no setting"
    assert found.run_dir == Path("x") and found.evaluate.num_inference_steps == 7 and found.evaluate.seed == 3
    assert found.evaluate.guidance_scale == 4 and found.teacher == config.teacher
    assert main(["generate", *files, "run_dir=x"]) == 2
    assert capsys.readouterr().err == (
        "pea: error: nothing to draw; expected a prompt beside the settings; got run_dir=x\n"
    )


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("evaluate.guidence_scale=4", "did you mean evaluate.guidance_scale?"),
        ("evaluate.guidance-scale=4", "did you mean evaluate.guidance_scale?"),
        ("eval.guidance_scale = 4", "eval"),
        ("guidance_scale=4", "guidance_scale"),
        ("rundir=x", "did you mean run_dir?"),
        ("seeds=4", "seeds"),
        ("evaluate.seed:4", "evaluate.seed:4"),
        ("evaluate.seed", "evaluate.seed"),
    ],
)
def test_a_misspelt_setting_is_no_prompt(
    config: Config, tmp_path: Path, word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "setup.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    assert generate.main(["一只猫", word, "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_prompts_that_are_no_settings() -> None:
    words = ["a=b", "E=mc²", "一只猫：红球", "a cat. a dog = pets", " run_dir=x", "evaluate.prompts.general=x"]
    assert generate.split_words(words) == (
        ["a=b", "E=mc²", "一只猫：红球", "a cat. a dog = pets", "run_dir=x"],
        [words[-1]],
    )


@pytest.fixture(scope="module")
def alone(config: Config) -> list[str]:
    """Adapter and base model, without a configuration."""
    return ["--adapter", str(config.adapter_dir), "--base", str(config.teacher.checkpoint), "--steps", "1"]


def test_generate_without_a_configuration(config: Config, alone: list[str], tmp_path: Path) -> None:
    path, out = tmp_path / "setup.yaml", tmp_path / "out"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    more = ["--negative-prompt", "小", "--guidance", "3", "--seed", "4", "--num-images", "2", "--out", str(out)]
    assert generate.main(["一只猫", *alone, *more]) == 0
    with Image.open(out / "001-一只猫.png") as image:
        kept, pixels = dict(image.text), np.asarray(image)
    weights = json.loads((config.adapter_dir / "config.json").read_text())["weights"]
    assert kept == {
        "prompt": "一只猫",
        "negative_prompt": "小",
        "seed": "4",
        "image_of_prompt": "1",
        "steps": "1",
        "guidance": "3.0",
        "adapter": str(config.adapter_dir),
        "adapter_weights": weights,
        "base": str(config.teacher.checkpoint),
        "Software": "PEA-Cache",
    }
    same = ["--config", str(path), "--steps", "1", *more[:-1], str(tmp_path / "same")]
    assert generate.main(["一只猫", *same]) == 0
    with Image.open(tmp_path / "same/001-一只猫.png") as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_sizes_and_long_prompts(alone: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--guidance", "0"]
    long = "一只猫狗红球大小雪草"
    assert generate.main([long, *alone, *out, "--size", "24x16"]) == 0
    assert size_of(tmp_path / f"out/000-{long}.png") == (24, 16)
    assert "lost of a prompt: '雪草' (--chunk reads it in pieces)" in capsys.readouterr().err
    with Image.open(tmp_path / f"out/000-{long}.png") as image:
        cut = np.asarray(image)
    assert generate.main([long, "猫", *alone, *out, "--size", "24x16", "--chunk"]) == 0
    assert capsys.readouterr().err == ""
    with Image.open(tmp_path / f"out/001-{long}.png") as image:
        assert not np.array_equal(np.asarray(image), cut)
    assert generate.main(["猫", *alone, *out[:1], str(tmp_path / "no"), "--size", "17"]) == 2
    assert "a size that cannot be drawn; expected multiples of 8; got 17x17" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    for wrong in ("0", "16x", "16x0", "big", "4104", "16x99999", "١٦"):
        with pytest.raises(SystemExit):
            generate.main(["猫", *alone, "--size", wrong])
    with pytest.raises(SystemExit):
        generate.main(["猫", *alone, "--num-images", "1000000000"])
    assert "is too many: at most 10,000 of a prompt" in capsys.readouterr().err
    assert generate.main(["猫", *alone, *out[:1], str(tmp_path / "no"), "--size", "6"]) == 2
    assert "a size that cannot be drawn; expected multiples of 8; got 6x6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which adapter?; expected --config FILE, or --adapter FOLDER (and --base); got neither"),
        (["--adapter", "A", "--config", "B"], "which adapter?"),
        (["--config", "B", "--base", "C"], "the configuration says which; got --base or --encoder"),
        (["--adapter", "A", "evaluate.seed=3"], "a setting without --config; got evaluate.seed=3"),
        (["--adapter", "A", "--set", "evaluate.seed=3"], "a setting without --config; got evaluate.seed=3"),
        (["--adapter", "ADAPTER"], "does not say where its diffusion model is; got teacher. Give it with --base."),
        (["--adapter", "A/b/c"], "A/b/c: no adapter here"),
    ],
)
def test_what_to_draw_with_is_said_in_one_way(
    config: Config, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(config.adapter_dir) if word == "ADAPTER" else word for word in words]
    assert generate.main([*words[2:], "猫", *words[:2]] if "evaluate.seed=3" in words[2:3] else ["猫", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
