"""A UNet in memory is told from others by a few of its weights' numbers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from pea.errors import CheckpointError
from pea.models.unet_values import told_apart, unet_values
from tests.tiny_models import make_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a UNet of SDXL's shape, in float32."""
    return make_checkpoint(tmp_path_factory.mktemp("values") / "own", "sdxl") / "unet"


@pytest.fixture(scope="module")
def own(folder: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def values(folder: Path) -> dict[str, str]:
    return unet_values(folder)


def moved(unet: UNet2DConditionModel, share: float) -> UNet2DConditionModel:
    """One whose weights were moved by a share of their spread."""
    other = copy.deepcopy(unet)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += share * parameter.std(correction=0) * torch.randn_like(parameter)
    return other


def test_eight_weights_from_first_to_last(values: dict[str, str], own: UNet2DConditionModel) -> None:
    names = sorted(name for name, each in own.state_dict().items() if each.ndim > 1)
    assert len(values) == 8 and {names[0], names[-1]} < values.keys() <= set(names)
    assert all(len(bytes.fromhex(each)) == 2 * 16 for each in values.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_same_in_another_type_or_order_in_memory_is_the_same(
    values: dict[str, str], own: UNet2DConditionModel, dtype: torch.dtype
) -> None:
    unet = copy.deepcopy(own).to(dtype)
    assert told_apart(values, unet, "org/sdxl") is None
    assert told_apart(values, unet.to(memory_format=torch.channels_last), "org/sdxl") is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_file_in_half_precision_tells_the_same(
    folder: Path, own: UNet2DConditionModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    (file,) = folder.glob("*.safetensors")
    save_file({name: each.to(dtype) for name, each in load_file(file).items()}, tmp_path / file.name)
    for loaded in (torch.float32, torch.float16, torch.bfloat16):
        assert told_apart(unet_values(tmp_path), copy.deepcopy(own).to(loaded), "org/sdxl") is None
    twice = copy.deepcopy(own).to(torch.float16).to(torch.bfloat16)
    assert told_apart(unet_values(tmp_path), twice, "org/sdxl") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fine_tune_and_another_model_are_told_apart(
    values: dict[str, str], own: UNet2DConditionModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    assert "other weights than that of org/sdxl" in str(told_apart(values, moved(own, 0.02).to(dtype), "org/sdxl"))
    stranger = UNet2DConditionModel.from_pretrained(make_checkpoint(tmp_path / "other", "sdxl", seed=7) / "unet")
    assert "nor a fine-tune of that" in str(told_apart(values, stranger.to(dtype), "org/sdxl"))
    other_names = dict(zip([f"gone.{name}" for name in values], values.values(), strict=True))
    assert "nor a fine-tune of that" in str(told_apart(other_names, own, "org/sdxl"))


def test_one_weight_that_differs_is_enough(values: dict[str, str], own: UNet2DConditionModel) -> None:
    other = copy.deepcopy(own)
    with torch.no_grad():
        other.get_parameter(list(values)[3]).mul_(1.01)
    assert "other weights" in str(told_apart(values, other, "org/sdxl"))


def test_a_lora_beside_the_weights_does_not_count(values: dict[str, str], own: UNet2DConditionModel) -> None:
    unet = copy.deepcopy(own)
    targets = [name.removesuffix(".weight") for name in values if "attn" in name]
    assert targets
    unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    assert told_apart(values, unet, "org/sdxl") is None


@pytest.mark.slow
def test_a_compiled_one_is_the_same(values: dict[str, str], own: UNet2DConditionModel) -> None:
    compiled = torch.compile(own)
    assert isinstance(compiled, torch.nn.Module) and told_apart(values, compiled, "org/sdxl") is None
    assert told_apart(values, torch.compile(moved(own, 0.1)), "org/sdxl")


def test_what_cannot_be_looked_at_says_nothing(values: dict[str, str], own: UNet2DConditionModel) -> None:
    assert told_apart({}, own, None) is None, "an adapter from before there were such numbers"
    assert told_apart(values, copy.deepcopy(own).to("meta"), None) is None
    eight_bits = copy.deepcopy(own)
    for name in values:
        module, _, last = name.rpartition(".")
        weight = eight_bits.get_parameter(name)
        setattr(eight_bits.get_submodule(module), last, torch.nn.Parameter(weight.to(torch.int8), requires_grad=False))
    assert told_apart(values, eight_bits, None) is None


@pytest.mark.parametrize("bad", [{"conv_in.weight": "xyz"}, {"conv_in.weight": 3}, {"conv_in.weight": "ab"}, ["a"]])
def test_what_is_no_record_is_an_error(bad: dict[str, str], own: UNet2DConditionModel) -> None:
    with pytest.raises(CheckpointError, match=r"base_model\.values: no numbers of a UNet"):
        told_apart(bad, own, None)
