"""`pea import`, and the errors that name it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pea.errors import CheckpointError
from pea.models.native import NativeEncoder, check_native
from stages.cli import main
from tests.models.encoders.tiny import make_encoder


@pytest.fixture
def in_bin(tmp_path: Path) -> Path:
    folder = make_encoder(tmp_path / "in", "e5")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_what_a_refusal_advises_is_what_helps(in_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for load in (NativeEncoder.from_pretrained, check_native):
        with pytest.raises(CheckpointError, match=r"no safetensors weights.*pea import \S+ --out FOLDER") as caught:
            load(in_bin)
    words = str(caught.value).split("? pea ")[1].rstrip(".").replace("FOLDER", str(tmp_path / "out")).split()
    assert main(words) == 0
    assert "transformers' own, as .bin; hidden states of width 32, 77 tokens" in capsys.readouterr().out
    check_native(tmp_path / "out")
    assert NativeEncoder.from_pretrained(tmp_path / "out").encode(["a"])[0].isfinite().all()


def test_tensors_by_other_names_are_refused_with_the_advice(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "in", "e5")
    state = {f"module.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing.*pea import"):
        NativeEncoder.from_pretrained(folder)


def test_a_file_and_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip_cn.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="pea import"):
        NativeEncoder.from_pretrained(tmp_path / "clip_cn.pt")
    with pytest.raises(CheckpointError) as caught:
        NativeEncoder.from_pretrained(tmp_path / "absent")
    assert "pea import" not in str(caught.value)
    assert main(["import", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
