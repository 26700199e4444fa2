"""`pea convert`: an official file in, an adapter folder out, one line for every problem."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pea.models.adapter import PEA
from stages import convert


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = PEA(8, 6, 4, hidden_size=16)
    torch.save(adapter.state_dict(), tmp_path / "pytorch_model.bin")
    argv = [str(tmp_path / "pytorch_model.bin"), "--out", str(tmp_path / "adapter"), "--max-tokens", "52"]
    assert convert.main(argv) == 0
    assert "SDXL adapter, 494 parameters, for a text encoder of width 8" in capsys.readouterr().out
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
