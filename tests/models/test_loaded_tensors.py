"""Numbers that no trained model has are refused wherever weights are taken in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from pea.errors import CheckpointError
from pea.models.adapter import PEA
from pea.models.loaded_tensors import check_numbers
from pea.models.loading import load_part
from pea.models.native import NativeEncoder
from pea.models.weight_files import WeightFiles
from tests.tiny_models import make_checkpoint, make_native_encoder

CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "not a number": (lambda tensor: tensor * float("nan"), "no finite numbers"),
    "infinite": (lambda tensor: tensor.index_fill(0, torch.tensor([0]), float("inf")), "no finite numbers"),
    "whole numbers": (lambda tensor: (100 * tensor).to(torch.int8), "quantized weights are not supported.*int8"),
    "8 bits": (lambda tensor: tensor.to(torch.float8_e4m3fn), "quantized weights are not supported.*float8_e4m3fn"),
    "truth": (lambda tensor: tensor > 0, "quantized weights are not supported.*bool"),
}


QUICK = [("encoder", "not a number"), ("unet", "8 bits"), *(("layers of a unet", change) for change in CHANGES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("numbers")
    make_checkpoint(place / "teacher", "sd15")
    make_native_encoder(place / "zh", "bert")
    PEA(8, 6, 4, hidden_size=8).save_pretrained(place / "adapter")
    return place


LOADED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "encoder": ("zh/model.safetensors", lambda place: NativeEncoder.from_pretrained(place / "zh")),
    "unet": (
        "teacher/unet/diffusion_pytorch_model.safetensors",
        lambda place: load_part(UNet2DConditionModel, place / "teacher/unet", torch.float32),
    ),
    "layers of a unet": (
        "teacher/unet/diffusion_pytorch_model.safetensors",
        lambda place: WeightFiles(place / "teacher/unet", torch.float32, "cpu").take("conv_in", ["bias"]),
    ),
}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        pytest.param(kind, change, marks=() if (kind, change) in QUICK else pytest.mark.slow)
        for kind in LOADED
        for change in CHANGES
    ],
)
def test_weights_that_are_none_are_refused(kind: str, change: str, folder: Path) -> None:
    name, load = LOADED[kind]
    path, (how, said) = folder / name, CHANGES[change]
    good = path.read_bytes()
    changed = {n: how(t) if t.is_floating_point() else t for n, t in load_file(path).items()}
    try:
        path.unlink()
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=said) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(good)


def test_weights_beyond_half_precision_are_said_with_the_remedy() -> None:
    large, half = torch.tensor([1e6]), torch.zeros(1, dtype=torch.float16)
    check_numbers("weight", large, large, "here")
    check_numbers("ids", torch.tensor([5]), torch.tensor([5]), "here")
    with pytest.raises(
        CheckpointError, match=r"here: weights that are no finite numbers; got weight, in float16\. Load"
    ):
        check_numbers("weight", large, half, "here")
