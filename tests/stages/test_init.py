"""`pea init`: what it writes passes the checks and the plan; it asks or refuses, and never overwrites."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from data_tools.prompt_sets import sets_for
from pea.config import Config, load_config
from stages import cli
from stages.command.families import FAMILIES, buckets_for, family_of, family_settings, fit_to_machine, gpus_here
from stages.command.preflight import preflight

Capture = pytest.CaptureFixture[str]


def words(setup: Config, out: Path, *more: str) -> list[str]:
    """A whole command line for the tiny setup."""
    assert setup.corpora.culture is not None
    parallel, culture = setup.corpora.parallel.tars[0], setup.corpora.culture.tars[0]
    given = {"--base": setup.teacher.checkpoint, "--encoder": setup.student.encoder, "--language": "zh"}
    given |= {"--parallel": parallel, "--culture": culture, "--out": out}
    return ["init", *(str(word) for pair in given.items() for word in pair), *more]


def without(command: Sequence[str], *options: str) -> list[str]:
    """A command line that lacks some options and their values."""
    pairs = [command[start : start + 2] for start in range(1, len(command), 2)]
    return ["init", *(word for pair in pairs if pair[0] not in options for word in pair)]


@pytest.mark.slow
def test_what_it_writes_passes_the_check_and_the_plan(tiny_sdxl: Config, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "new" / "my.yaml"
    command = words(tiny_sdxl, out, "--tflops", "0.001", "--gpus", "0", "train.steps=40")
    assert cli.main([*command, "cache.sketch={kind: exact}"]) == 0
    said = capsys.readouterr().out
    config = load_config(out)
    assert preflight(config) == []
    assert sorted(config.evaluate.prompts) == ["culture-zh", "general"], "without --prompts, the package's own"
    assert all(path.is_file() and path.parent == out.parent / "prompts" for path in config.evaluate.prompts.values())
    assert (config.cache.run.num_actors, config.cache.run.num_gpus_per_actor) == (1, 0), "--gpus 0"
    assert (config.train.steps, config.cache.sketch.kind) == (40, "exact")
    assert config.cache.buckets == ((16, 16),), "what the tiny model was made for, not the family's 1024 px"
    family = family_settings("sdxl")
    assert config.train.patience == family["train"]["patience"], "the rest is the family's"
    assert "16 samples x 4 draws = 64 records" in said, "as many as the tars hold"
    assert "steps: 40 (text) + 40 (unet); in passes of the UNet, each record is used 7.50 times" in said
    assert re.search(r"training, unet +│ 640 ", said) and "unchecked" not in said
    assert f"pea cache --config {out}" in said
    assert f"prompts to score with: general.jsonl, culture-zh.jsonl in {out.parent / 'prompts'}\n" in said
    capsys.readouterr()
    assert cli.main(["plan", "--config", str(out)]) == 0
    assert "64 records" in capsys.readouterr().out
    before = out.read_bytes()
    assert cli.main(command) == 2
    assert "the file exists already" in capsys.readouterr().err and out.read_bytes() == before


@pytest.mark.slow
def test_what_could_not_be_looked_at_is_said(tiny_sdxl: Config, tmp_path: Path, capsys: Capture) -> None:
    out, base = tmp_path / "my.yaml", tmp_path / "later"
    rest = without(words(tiny_sdxl, out), "--base", "--encoder", "--parallel")
    later = [
        *rest,
        "--base",
        str(base),
        "--encoder",
        str(tmp_path / "xlmr"),
        "--parallel",
        str(tmp_path / "none-*.tar"),
    ]
    assert cli.main(later) == 2
    assert "--family" in capsys.readouterr().err and not out.exists()
    assert cli.main([*later, "--family", "sd15"]) == 0
    said = capsys.readouterr().out
    for what in (
        "teacher.checkpoint: a preset",
        f"student.encoder: {tmp_path / 'xlmr'} is not",
        "no such tar",
        "plan: ",
    ):
        assert re.search(f"unchecked: .*{re.escape(what)}", said), said
    out.unlink()
    assert cli.main([*later, "--family", "sd15", "--samples", "1000"]) == 0
    assert "1,000 samples x 4 draws = 4,000 records" in capsys.readouterr().out


def test_a_model_with_a_fault_is_refused_and_nothing_is_written(
    tiny_sdxl: Config, tmp_path: Path, capsys: Capture
) -> None:
    encoder, out = tmp_path / "zh", tmp_path / "my.yaml"
    shutil.copytree(tiny_sdxl.student.encoder, encoder)
    (encoder / "model.safetensors").unlink()
    command = without(words(tiny_sdxl, out), "--encoder")
    assert cli.main([*command, "--encoder", str(encoder)]) == 2
    assert "no safetensors weights" in capsys.readouterr().err and not out.exists()
    for wrong, said in (("train.stepps=4", "train.stepps"), ("train.steps", "dotted.key=value")):
        assert cli.main([*words(tiny_sdxl, out), wrong]) == 2
        assert said in capsys.readouterr().err and not out.exists()


def test_a_place_that_cannot_be_written_is_said_before_anything_is_spent(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.init.os.access", lambda place, _: place != tmp_path)
    assert cli.main(["init", "--out", str(tmp_path / "new/pea.yaml")]) == 2
    assert f"{tmp_path}: nothing may be written there. Give another place" in capsys.readouterr().err


def test_without_a_terminal_what_is_missing_is_named(tiny_sdxl: Config, tmp_path: Path, capsys: Capture) -> None:
    command = without(words(tiny_sdxl, tmp_path / "my.yaml"), "--encoder", "--language")
    assert cli.main(command) == 2
    assert "--encoder, --language" in capsys.readouterr().err


@pytest.mark.slow
def test_at_a_terminal_it_asks(
    tiny_sdxl: Config, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "my.yaml"
    command = without(words(tiny_sdxl, out), "--encoder", "--language", "--parallel", "--culture")
    answers = iter([str(tiny_sdxl.student.encoder), "zh, ja", f" {tiny_sdxl.corpora.parallel.tars[0]}", ""])
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    assert cli.main(command) == 0
    config = load_config(out)
    assert config.student.languages == ("zh", "ja") and config.corpora.culture is None and len(asked) == 4


def test_families_and_their_sizes() -> None:
    assert {
        family_of({}),
        family_of(
            {
                "addition_embed_type": "text_time",
                "projection_class_embeddings_input_dim": 2816,
                "addition_time_embed_dim": 256,
            }
        ),
    } == set(FAMILIES)
    vae = {"block_out_channels": [1, 2, 3, 4]}
    several = [[1024, 1024], [1152, 896]]
    assert buckets_for({"sample_size": 128}, vae, several) == several
    assert buckets_for({"sample_size": 96}, vae, several) == [[768, 768]]
    assert buckets_for({"sample_size": [64, 96]}, vae, several) == [[512, 768]]
    assert buckets_for({}, vae, several) == several, "a model that does not say"


def test_what_is_written_fits_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    raw = family_settings("sdxl")
    note = fit_to_machine(raw, 0)
    assert raw["cache"]["run"] == {"batch_size": 8, "num_cpus_per_actor": 4}, "and no GPU"
    assert (raw["teacher"]["dtype"], raw["train"]["precision"]) == ("float32", "no")
    commented = yaml.safe_load("".join(line.removeprefix("#   ") + "\n" for line in note.splitlines()[1:]))
    family = family_settings("sdxl")
    assert commented["cache"]["run"] == family["cache"]["run"], "what a node with GPUs wants is not lost"
    assert commented["teacher"]["dtype"] == "float16" and commented["train"]["precision"] == "bf16"
    assert fit_to_machine(two := family_settings("sdxl"), 2) == ""
    assert two["cache"]["run"] == family["cache"]["run"] | {"num_actors": 2, "num_cpus_per_actor": 2}
    assert fit_to_machine(cluster := family_settings("sdxl"), None) == "" and cluster == family
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert gpus_here() is None, "a cluster has GPUs of its own"


def test_a_language_without_prompts_of_its_own_gets_none() -> None:
    assert sets_for(["zh", "ja"]) == ["general", "culture-zh", "culture-ja"]
    assert sets_for(["de"]) == []


def test_a_single_file_is_no_base(tiny_sdxl: Config, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    command = without(words(tiny_sdxl, tmp_path / "my.yaml"), "--base")
    assert cli.main([*command, "--base", str(file)]) == 2
    assert "a single file" in capsys.readouterr().err
