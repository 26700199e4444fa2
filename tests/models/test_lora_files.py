"""A LoRA of a stranger is looked at before a library makes matrices of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pea.errors import CheckpointError
from pea.models.lora_files import check_lora

LORA = {"unet.a.to_k.lora_A.weight": torch.ones(2, 32), "unet.a.to_k.lora_B.weight": torch.ones(16, 2)}


def written(folder: Path, tensors: dict[str, torch.Tensor], settings: object = None) -> Path:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    save_file(tensors, folder / "lora.safetensors", metadata={"lora_adapter_metadata": text} if settings else None)
    return folder / "lora.safetensors"


def test_usual_ones_pass(tmp_path: Path) -> None:
    settings = {"unet.r": 2, "unet.rank_pattern": {"to_k": 4}, "unet.lora_alpha": 64, "unet.target_modules": ["to_k"]}
    for each in (None, settings):
        check_lora(written(tmp_path, LORA, each))
    check_lora(
        written(tmp_path, {"lora_unet_a.lora_down.weight": torch.ones(2, 4), "lora_unet_a.alpha": torch.tensor(1.0)})
    )


@pytest.mark.parametrize(
    ("tensors", "settings", "said"),
    [
        ({}, None, "holds no matrices"),
        ({name: tensor * float("nan") for name, tensor in LORA.items()}, None, "no finite numbers"),
        ({name: tensor.to(torch.int8) for name, tensor in LORA.items()}, None, "quantized weights"),
        ({"text_encoder.a.lora_A.weight": torch.ones(2, 2)}, None, "changes text encoders is not supported"),
        ({"lora_te1_a.lora_down.weight": torch.ones(2, 2)}, None, "changes text encoders is not supported"),
        (LORA, {"unet.r": 10**9}, "a rank from 1 to 32; got 1000000000"),
        (LORA, {"unet.rank_pattern": {"to_k": 10**9}}, "a rank from 1 to 32; got 1000000000"),
        (LORA, {"unet.r": -1}, "got -1"),
        (LORA, "{", "cannot load this LoRA"),
        (LORA, "[1]", "not a JSON object but a list"),
    ],
)
def test_others_are_refused(tensors: dict[str, torch.Tensor], settings: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        check_lora(written(tmp_path, tensors, settings))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lora.safetensors").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        check_lora(tmp_path / "lora.safetensors")
