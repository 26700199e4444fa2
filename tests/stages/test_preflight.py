"""Whatever a configuration names is looked at before anything is spent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from pea.config import Config, resolved_yaml
from pea.errors import CheckpointError, ConfigError, CorpusError, EvaluationError
from stages import cache_teacher, cli, train_adapter
from stages.command.preflight import preflight, preflight_plan, preflight_training


@pytest.fixture
def setup(tiny_sdxl: Config, tmp_path: Path) -> Config:
    """The tiny setup with models of its own, to be changed."""
    shutil.copytree(tiny_sdxl.teacher.checkpoint, tmp_path / "teacher")
    shutil.copytree(tiny_sdxl.student.encoder, tmp_path / "zh")
    return tiny_sdxl.model_copy(
        update={
            "teacher": tiny_sdxl.teacher.model_copy(update={"checkpoint": tmp_path / "teacher"}),
            "student": tiny_sdxl.student.model_copy(update={"encoder": tmp_path / "zh"}),
        }
    )


def change(path: Path, **changes: Any) -> None:
    """Replace keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def lose(path: Path) -> None:
    """A file without one of its tensors."""
    tensors = load_file(path)
    del tensors[max(name for name in tensors if name.endswith("bias") and "vis" not in name)]
    save_file(tensors, path, metadata={"format": "pt"})


def spoil(path: Path) -> str:
    """One number of the last tensor that every model reads is none; returns the tensor's name."""
    tensors = load_file(path)
    name = max(name for name in tensors if name.endswith("bias") and "vis" not in name)
    tensors[name][-1] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    return name


def test_a_whole_setup_passes_without_loading_weights(setup: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("pea.models.loading.load_model", refuse)
    assert preflight(setup) == preflight_training(setup) == preflight_plan(setup, with_teacher=True) == []


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a tensor of the unet": (lambda f: lose(f / "teacher/unet/diffusion_pytorch_model.safetensors"), "1 missing"),
    "a tensor of the vae": (lambda f: lose(f / "teacher/vae/diffusion_pytorch_model.safetensors"), "1 missing"),
    "a tensor of the text": (lambda f: lose(f / "teacher/text_encoder_2/model.safetensors"), "1 missing"),
    "a tensor of the student": (lambda f: lose(f / "zh/model.safetensors"), "1 missing"),
    "a file that is cut": (
        lambda f: (f / "zh/model.safetensors").write_bytes((f / "zh/model.safetensors").read_bytes()[:-9]),
        "not a whole safetensors file; got it is cut short",
    ),
    "no weights": (lambda f: (f / "zh/model.safetensors").unlink(), "no safetensors weights"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "teacher/tokenizer_2"), "no such model folder"),
    "a short tokenizer": (
        lambda f: change(f / "teacher/tokenizer/tokenizer_config.json", model_max_length=8),
        "tokenizer and text encoder differ in length; expected model_max_length 12; got 8",
    ),
    "a longer tokenizer": (
        lambda f: change(f / "teacher/tokenizer_2/tokenizer_config.json", model_max_length=77),
        "differ in length; expected model_max_length 12; got 77",
    ),
    "the noise": (
        lambda f: change(f / "teacher/scheduler/scheduler_config.json", _class_name="EDMEulerScheduler"),
        "unsupported scheduler",
    ),
    "no teacher": (lambda f: shutil.rmtree(f / "teacher"), "no such model folder"),
    "no student": (lambda f: shutil.rmtree(f / "zh"), "no such model folder"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_models_are_known_at_once(setup: Config, fault: str, tmp_path: Path) -> None:
    how, said = FAULTS[fault]
    how(tmp_path)
    asks: list[Callable[[Config], object]] = [preflight]
    if "student" in fault or fault in ("a file that is cut", "no weights"):
        asks = [preflight_training] if fault == "no student" else [preflight, preflight_training]
    for ask in asks:
        with pytest.raises(CheckpointError, match=said) as caught:
            ask(setup)
        assert "\n" not in str(caught.value)


_PICTURES = {"sample_every_steps": 2, "sample_prompts": ("一只猫",)}
READ_IN_TRAINING: dict[str, tuple[str, dict[str, Any]]] = {
    "of the unet": ("teacher/unet/diffusion_pytorch_model.safetensors", {}),
    "of the student": ("zh/model.safetensors", {}),
    "of the vae that pictures are made with": ("teacher/vae/diffusion_pytorch_model.safetensors", _PICTURES),
    "of the encoder that the live teacher reads with": ("teacher/text_encoder/model.safetensors", {"targets": "live"}),
    "of the encoder that texts are compared with": ("teacher/text_encoder_2/model.safetensors", {"text_weight": 1.0}),
}


@pytest.mark.parametrize("part", READ_IN_TRAINING)
def test_numbers_that_are_none_are_known_before_the_first_phase(setup: Config, part: str, tmp_path: Path) -> None:
    """Some are read after hours only; a plan, which spends nothing, does not read whole files."""
    file, wanted = READ_IN_TRAINING[part]
    phases = setup.train.model_validate({"phases": [{"kind": "attention"}, {"kind": "unet"}], **wanted})
    config = setup.model_copy(update={"train": phases})
    assert preflight_training(config) == []
    name = spoil(tmp_path / file)
    for ask in (preflight, preflight_training):
        with pytest.raises(CheckpointError, match=f"weights that are no finite numbers; got {name}") as caught:
            ask(config)
        assert "\n" not in str(caught.value)
    assert preflight_plan(config, with_teacher=True) == []


def test_a_run_asks_for_those_parts_of_the_teacher_that_it_reads(setup: Config, tmp_path: Path) -> None:
    for name in ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"):
        shutil.rmtree(tmp_path / "teacher" / name)
    assert preflight_training(setup) == []
    for wanted in (_PICTURES, {"targets": "live"}, {"text_weight": 1.0}):
        phases = setup.train.model_validate({"phases": [{"kind": "attention"}, {"kind": "unet"}], **wanted})
        with pytest.raises(CheckpointError, match=r"no VAE configuration|no such model folder"):
            preflight_training(setup.model_copy(update={"train": phases}))


def test_a_student_to_come_is_said_to_be_unchecked(setup: Config, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "zh")
    judged = setup.model_copy(update={"evaluate": setup.evaluate.model_copy(update={"judge": tmp_path / "judge"})})
    said = [
        f"evaluate.judge: {tmp_path / 'judge'} is not there yet",
        f"student.encoder: {tmp_path / 'zh'} is not there yet",
    ]
    assert preflight(judged) == said
    assert preflight_plan(judged, with_teacher=False) == ["teacher.checkpoint: a preset stands for it", *said]


def test_missing_tars_and_prompts(setup: Config, tmp_path: Path) -> None:
    culture = setup.corpora.culture.model_copy(update={"tars": (str(tmp_path / "none-*.tar"),)})
    without = setup.model_copy(update={"corpora": setup.corpora.model_copy(update={"culture": culture})})
    with pytest.raises(CorpusError, match="no such tar"):
        preflight(without)
    (said,) = preflight_plan(without, with_teacher=True)
    assert said.startswith("corpora.culture: ") and "no such tar" in said
    prompts = tmp_path / "prompts.jsonl"
    asked = setup.model_copy(update={"evaluate": setup.evaluate.model_copy(update={"prompts": {"general": prompts}})})
    assert preflight_training(asked) == [f"evaluate.prompts.general: {prompts} is not there yet"]
    prompts.write_text("{")
    with pytest.raises(EvaluationError, match="not a prompt"):
        preflight_training(asked)
    cache = setup.cache.model_copy(update={"buckets": ((15, 16),)})
    with pytest.raises(ConfigError, match="the bucket does not fit"):
        preflight(setup.model_copy(update={"cache": cache}))


@pytest.mark.slow
def test_the_commands_look_before_they_spend(
    setup: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spend(*_: object, **__: object) -> None:
        raise AssertionError("Ray or training has been started")

    monkeypatch.setattr("stages.cluster.filling.Actors", spend)
    monkeypatch.setattr("stages.train_adapter.Accelerator", spend)
    lose(tmp_path / "zh/model.safetensors")
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(setup.model_copy(update={"run_dir": tmp_path / "run"})))
    for command in (cache_teacher.main, train_adapter.main):
        assert command(["--config", str(path)]) == 2
        assert "1 missing (text_model" in capsys.readouterr().err
    assert cli.main(["plan", "--config", str(path)]) == 2
    assert "1 missing (text_model" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "zh")
    assert cli.main(["plan", "--config", str(path)]) == 0
    assert f"unchecked: student.encoder: {tmp_path / 'zh'} is not there yet" in capsys.readouterr().out
