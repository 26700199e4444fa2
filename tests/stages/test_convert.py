"""`pea convert`: an official file in, an adapter folder out, one line for every problem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pea.errors import CheckpointError
from pea.models.adapter import PEA
from pea.models.unet_values import unet_values
from pea.pipeline import PEAPrompt
from stages import convert
from tests.hostile_pickles import Payload
from tests.pipeline.test_publishing import run_snippet
from tests.tiny_models import make_checkpoint, make_native_encoder


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = PEA(8, 6, 4, hidden_size=16)
    torch.save(adapter.state_dict(), tmp_path / "pytorch_model.bin")
    argv = [str(tmp_path / "pytorch_model.bin"), "--out", str(tmp_path / "adapter"), "--max-tokens", "52"]
    assert convert.main(argv) == 0
    said = capsys.readouterr().out
    assert "SDXL adapter, 494 parameters, for a text encoder of width 8" in said and "--encoder" in said
    with pytest.warns(UserWarning, match="does not say which text encoder"):
        loaded = PEA.load(tmp_path / "adapter")
    assert loaded.config.max_tokens == 52
    hidden = torch.randn(1, 3, 8)
    assert torch.equal(loaded(hidden)[0], adapter(hidden)[0])
    assert convert.main(argv) == 2
    assert "something here already" in capsys.readouterr().err


def test_code_in_the_file_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"layernorm.weight": Payload(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    assert convert.main([str(tmp_path / "pytorch_model.bin"), "--out", str(tmp_path / "adapter")]) == 2
    error = capsys.readouterr().err
    assert "more than plain tensors, and nothing in it is run; got " in error
    assert error.count("\n") == 1
    assert not (tmp_path / "executed").exists() and not (tmp_path / "adapter").exists()


def test_what_it_was_trained_for_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, encoder = make_checkpoint(tmp_path / "teacher", "sdxl"), make_native_encoder(tmp_path / "zh")
    torch.save(PEA(16, 32, 12, hidden_size=16).state_dict(), tmp_path / "pea.bin")
    argv = [str(tmp_path / "pea.bin"), "--out", str(tmp_path / "adapter"), "--encoder", str(encoder)]
    argv += ["--base", str(teacher), "--language", "zh", "--language", "ja"]
    assert convert.main(argv) == 0 and "--encoder" not in capsys.readouterr().out
    kept = PEA.load(tmp_path / "adapter").config
    assert kept.encoder["name"] == "zh" and kept.max_tokens == 10 and kept.languages == ["zh", "ja"]
    assert kept.base_model["name"] == "teacher" and kept.prediction_type == "epsilon"
    assert kept.base_model["values"] == unet_values(teacher / "unet")
    PEAPrompt.from_pretrained(tmp_path / "adapter", encoder)
    with pytest.raises(CheckpointError, match="trained for another text encoder"):
        PEAPrompt.from_pretrained(tmp_path / "adapter", make_native_encoder(tmp_path / "other", seed=2))


def test_an_encoder_or_base_model_of_another_shape_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, encoder = make_checkpoint(tmp_path / "teacher", "sd15"), make_native_encoder(tmp_path / "zh")
    torch.save(PEA(16, 32, 12, hidden_size=16).state_dict(), tmp_path / "sdxl.bin")
    torch.save(PEA(8, 16, None, hidden_size=16).state_dict(), tmp_path / "narrow.bin")
    out = ["--out", str(tmp_path / "adapter")]
    assert convert.main([str(tmp_path / "sdxl.bin"), *out, "--base", str(teacher)]) == 2
    assert "a diffusion model of another shape; expected text states of width 32" in capsys.readouterr().err
    assert convert.main([str(tmp_path / "narrow.bin"), *out, "--encoder", str(encoder)]) == 2
    assert "hidden states of width 8" in capsys.readouterr().err
    assert not (tmp_path / "adapter").exists()


def _wrapped(kind: str, state: dict[str, torch.Tensor], folder: Path) -> Path:
    """The file, or DeepSpeed's folder, that a trainer leaves of an adapter with these tensors."""
    file = folder / "checkpoint.pt"
    other = {"unet.conv_in.weight": torch.zeros(2, 2), "text_encoder.fc.weight": torch.zeros(2)}
    if kind == "ddp":
        torch.save({f"module.{name}": each for name, each in state.items()}, file)
    elif kind == "lightning":
        own = {f"pea.{name}": each for name, each in state.items()}
        torch.save({"epoch": 3, "global_step": 7, "state_dict": own | other, "optimizer_states": [{"step": 1}]}, file)
    elif kind == "half":
        torch.save({name: each.half() for name, each in state.items()}, file)
    elif kind == "safetensors":
        file = file.with_suffix(".safetensors")
        save_file(state, file)
    else:
        step = folder / "ds/global_step7" if kind == "deepspeed" else folder / "ds/checkpoint"
        step.mkdir(parents=True)
        if kind == "deepspeed":
            (folder / "ds/latest").write_text("global_step7")
        own = {f"_forward_module.model.pea.{name}": each for name, each in state.items()}
        torch.save({"module": own | other, "optimizer": None, "ds_version": "0.1"}, step / "mp_rank_00_model_states.pt")
        file = folder / "ds" if kind == "deepspeed" else step
    return file


@pytest.mark.parametrize("kind", ["ddp", "lightning", "deepspeed", "deepspeed-step", "half", "safetensors"])
def test_what_trainers_leave_is_read(kind: str, tmp_path: Path) -> None:
    adapter = PEA(8, 6, 4, hidden_size=16)
    state = {name: each.half().float() for name, each in adapter.state_dict().items()}
    path = _wrapped(kind, state, tmp_path)
    assert convert.main([str(path), "--out", str(tmp_path / "adapter"), "--max-tokens", "52"]) == 0
    with pytest.warns(UserWarning, match="does not say which text encoder"):
        loaded = PEA.load(tmp_path / "adapter")
    assert all(torch.equal(each, state[name]) for name, each in loaded.state_dict().items())
    assert loaded.dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a.projector.0.weight": torch.zeros(1), "b.projector.0.weight": torch.zeros(1)}, "several adapters: a., b."),
        ({"state_dict": {"unet.weight": torch.zeros(1)}}, "no projector.0.weight among unet.weight"),
        ({"epoch": 1}, "no tensors by name"),
        ([torch.zeros(1)], "no tensors by name"),
        ({"pea.projector.0.weight": torch.zeros(1)}, "not an official PEA checkpoint"),
    ],
)
def test_other_files_are_one_line(
    content: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert convert.main([str(tmp_path / "other.pt"), "--out", str(tmp_path / "adapter")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "adapter").exists()


@pytest.mark.slow
def test_the_folder_has_a_card_that_runs_and_finds_its_encoder(tmp_path: Path) -> None:
    teacher, encoder = make_checkpoint(tmp_path / "teacher", "sdxl"), make_native_encoder(tmp_path / "zh")
    torch.save(PEA(16, 32, 12, hidden_size=16).state_dict(), tmp_path / "pea.bin")
    argv = [str(tmp_path / "pea.bin"), "--out", str(tmp_path / "adapter"), "--encoder", str(encoder)]
    assert convert.main([*argv, "--base", str(teacher), "--language", "zh"]) == 0
    card = (tmp_path / "adapter/README.md").read_text("utf-8")
    assert "language:\n- zh" in card and "Converted from `pea.bin`" in card
    assert run_snippet(card).size == (16, 16)


def test_the_files_are_for_the_group_as_the_umask_says(tmp_path: Path) -> None:
    torch.save(PEA(8, 6, 4, hidden_size=16).state_dict(), tmp_path / "pea.bin")
    former = os.umask(0o027)
    try:
        assert convert.main([str(tmp_path / "pea.bin"), "--out", str(tmp_path / "adapter")]) == 0
    finally:
        os.umask(former)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "adapter").iterdir()}
    assert set(modes.values()) == {0o640} and "diffusion_pytorch_model.safetensors" in modes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--base", "absent"], "absent: no such model folder"),
        (["--base", "pea.bin"], "pea.bin: no such model folder"),
        (["--base", "."], "no diffusers pipeline here"),
        (["--language", "x\ny"], "an unusable languages; expected a list of codes such as zh"),
        (["--max-tokens", "1000000000"], "an unusable max_tokens"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_written(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(PEA(16, 32, 12, hidden_size=16).state_dict(), tmp_path / "pea.bin")
    assert convert.main(["pea.bin", "--out", "adapter", *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "adapter").exists()
