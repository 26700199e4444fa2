"""Files of weights are read as plain tensors, or refused in words that a person understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pea.errors import CheckpointError
from pea.models.plain_files import read_plain
from tests.hostile_pickles import WRITERS, write_hostile


def test_plain_tensors_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "step": 5}, tmp_path / "a.bin")
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_plain(tmp_path / "a.bin")["step"] == 5
    assert torch.equal(read_plain(tmp_path / "a.bin")["a"], read_plain(tmp_path / "a.safetensors")["a"])


@pytest.mark.parametrize("writer", WRITERS)
def test_what_would_run_something_is_named(writer: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "in.bin", tmp_path / "it ran"
    write_hostile(path, trace, writer)
    with pytest.raises(CheckpointError, match="more than plain tensors, and nothing in it is run; got ") as caught:
        read_plain(path)
    assert "weights_only" not in str(caught.value), "how torch would run it is no advice of ours"
    assert not trace.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n", "a git-LFS pointer"),
        (b"GGUF" + bytes(60), "cannot read the weights|a pickle"),
    ],
)
def test_other_files_are_refused(content: bytes, said: str, ending: str, tmp_path: Path) -> None:
    (tmp_path / f"in{ending}").write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_plain(tmp_path / f"in{ending}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"a: 1\n", b"a,b\n1,2\n", b"<!DOCTYPE html>\n<html>", b'{"a": [1]}\n'])
def test_a_text_is_no_file_of_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(f"one that begins with {content[:16]!r}")):
        read_plain(tmp_path / "in.bin")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2000)}, tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes()[:900])
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        read_plain(tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"cannot read the weights; got No such file"):
        read_plain(tmp_path / "absent.bin")
