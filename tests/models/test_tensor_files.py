"""Files of weights that are none, or not whole, or not here, are refused by their headers and names."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pea.errors import CheckpointError
from pea.models import tensor_files
from pea.models.tensor_files import LEFT_OUT, digest_of, stored_tensors, weight_files

SHARD = "model-00001-of-00002.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def sharded(folder: Path, **more: str) -> Path:
    """A folder with one shard of tensor `a`, and an index; `more`: tensors and the files that are to have them."""
    folder.mkdir(exist_ok=True)
    save_file({"a": torch.zeros(2)}, folder / SHARD)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": SHARD} | more}))
    return folder


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    assert weight_files(sharded(tmp_path)) == ([tmp_path / SHARD], None)


@pytest.mark.parametrize("outside", ["../other/model.safetensors", "/etc/passwd", f"../folder/{SHARD}", f"./{SHARD}"])
def test_an_index_names_files_beside_it_alone(outside: str, tmp_path: Path) -> None:
    """The library would read what the index names, and the digest be of the file beside it."""
    save_file({"b": torch.ones(2)}, tmp_path / "model.safetensors")
    folder = sharded(tmp_path / "folder", b=outside)
    with pytest.raises(CheckpointError, match=r"cannot read the index.*which is not in this folder") as caught:
        weight_files(folder)
    assert outside in str(caught.value)


def test_a_shard_that_is_absent_is_named(tmp_path: Path) -> None:
    (tmp_path / "model-00002-of-00002.safetensors.incomplete").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"is missing; expected model-00002-of-00002\.safetensors; got .*incompl"):
        stored_tensors(sharded(tmp_path, b="model-00002-of-00002.safetensors"))


@pytest.mark.parametrize("text", ["[]", "5", "{", '{"weight_map": []}', '{"weight_map": {}}', "{}", "[" * 100_000])
def test_an_index_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot read the index of the weights") as caught:
        weight_files(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_tensor_is_in_one_file(tmp_path: Path) -> None:
    sharded(tmp_path, b="second.safetensors")
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "second.safetensors")
    with pytest.raises(CheckpointError, match=f"in two files; got a in {SHARD} and second.safetensors"):
        stored_tensors(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.gguf", "model.safetensors.incomplete", "lora.safetensors"]
)
def test_other_weights_are_named_and_not_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match=rf"no safetensors weights; expected model\.safetensors .*; got {name}\."):
        weight_files(tmp_path)


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + bytes(16)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes"),
        (b"12345", "5 bytes"),
        (POINTER, "git-LFS pointer"),
        (b"PK\x03\x04" + bytes(60), "longer than the file: cut short, or another kind of file"),
        (header(b"[]"), "not a JSON object but a list"),
        (header(b"[" * 100_000), "nested too deeply"),
        (header(b'{"a": 5}'), "not subscriptable"),
        (header(b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'), "cut short"),
    ],
)
def test_what_is_no_whole_file_is_said(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"not a whole safetensors file; got .*{said}") as caught:
        stored_tensors(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_digest_is_of_finite_numbers(
    dtype: torch.dtype, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read whole for its digest is looked at on the way, before anything is computed with it."""
    monkeypatch.setattr(tensor_files, "_BLOCK_BYTES", 64)
    sound = torch.full((99,), torch.finfo(dtype).max, dtype=dtype)
    broken = sound.clone()
    broken[77] = bad
    save_file({"whole": sound, "zero": torch.zeros(0, dtype=dtype)}, tmp_path / "model.safetensors")
    expected = digest_of(tmp_path)
    save_file({"whole": sound, "zero": torch.zeros(0, dtype=dtype), "pooler.x": broken}, tmp_path / "model.safetensors")
    assert digest_of(tmp_path, left_out=LEFT_OUT) == expected, "what is not used may be anything"
    with pytest.raises(CheckpointError, match=r"weights that are no finite numbers; got pooler\.x\. Get"):
        digest_of(tmp_path)


def test_whole_numbers_are_finite(tmp_path: Path) -> None:
    save_file({"a": torch.full((9,), -1, dtype=torch.int32)}, tmp_path / "model.safetensors")
    assert len(digest_of(tmp_path)) == 64
