"""`pea convert`: an official file in, an adapter folder out, one line for every problem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pea.errors import CheckpointError
from pea.models.adapter import PEA
from pea.pipeline import PEAPrompt
from stages import convert
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
    class Trap:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"layernorm.weight": Trap()}, tmp_path / "pytorch_model.bin")
    assert convert.main([str(tmp_path / "pytorch_model.bin"), "--out", str(tmp_path / "adapter")]) == 2
    error = capsys.readouterr().err
    assert "not an official PEA checkpoint" in error and error.count("\n") == 1
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


def test_the_files_are_for_the_group_as_the_umask_says(tmp_path: Path) -> None:
    torch.save(PEA(8, 6, 4, hidden_size=16).state_dict(), tmp_path / "pea.bin")
    former = os.umask(0o027)
    try:
        assert convert.main([str(tmp_path / "pea.bin"), "--out", str(tmp_path / "adapter")]) == 0
    finally:
        os.umask(former)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "adapter").iterdir()}
    assert set(modes.values()) == {0o640} and "diffusion_pytorch_model.safetensors" in modes
