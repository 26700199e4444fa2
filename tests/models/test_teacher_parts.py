"""Which checkpoints are supported; the others are refused by name, before any weight is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from pea.attention.layers import AttentionLayers
from pea.costs.caching import unet_flops
from pea.errors import CheckpointError
from pea.evaluation.drawing import load_pipeline
from pea.models.conditioning import Conditioning
from pea.models.teacher_parts import check_teacher, read_config, unet_blocks
from pea.models.unet import Teacher
from pea.models.unet_shapes import block_shapes, query_shapes
from pea.models.vae import VaeEncoder
from tests.tiny_models import make_checkpoint

NO_MID = {"mid_block_type": None}


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("sdxl"), "sdxl")


@pytest.fixture
def checkpoint(sdxl: Path, tmp_path: Path) -> Path:
    shutil.copytree(sdxl, tmp_path / "copy")
    return tmp_path / "copy"


def change(path: Path, **changes: Any) -> None:
    """Replace keys of a configuration."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_supported_ones_pass(sdxl: Path, tmp_path: Path) -> None:
    check_teacher(sdxl)
    check_teacher(make_checkpoint(tmp_path, "sd15"))


UNETS: dict[str, tuple[dict[str, Any], str]] = {
    "inpainting": ({"in_channels": 9}, r"an inpainting UNet \(9 input channels\) is not supported"),
    "edits": ({"in_channels": 8}, "also sees an image"),
    "upscaler": ({"in_channels": 7}, "an upscaler"),
    "depth": ({"in_channels": 5}, "depth-conditioned"),
    "other inputs": ({"in_channels": 6}, "other inputs than latents"),
    "classes": ({"num_class_embeds": 10}, "a UNet with class embeddings is not supported; got num_class_embeds 10"),
    "class projections": ({"class_embed_type": "projection"}, "class embeddings"),
    "image prompts": ({"encoder_hid_dim_type": "ip_image_proj"}, "projects its text states"),
    "image embeddings": ({"addition_embed_type": "image"}, "other additional embeddings"),
    "LCM": ({"time_cond_proj_dim": 256}, "takes the guidance scale"),
    "two texts": ({"dual_cross_attention": True}, "reads two texts at once"),
    "several widths": ({"cross_attention_dim": [16, 32]}, "several widths"),
    "another class": ({"_class_name": "SD3Transformer2DModel"}, "expected UNet2DConditionModel; got SD3Transformer2D"),
    "narrower": ({"cross_attention_dim": 16}, r"text states of width 16 and .*got 16 \+ 16 and a pooled embedding"),
    "refiner's": ({"projection_class_embeddings_input_dim": 8 + 24}, "pooled embedding of width 8; got .*width 12"),
}


@pytest.mark.parametrize("name", UNETS)
def test_other_unets_are_refused_by_name(name: str, checkpoint: Path) -> None:
    changes, said = UNETS[name]
    change(checkpoint / "unet/config.json", **changes)
    with pytest.raises(CheckpointError, match=said) as caught:
        check_teacher(checkpoint)
    assert "\n" not in str(caught.value) and str(checkpoint) in str(caught.value)


VAES: dict[str, tuple[dict[str, Any], str]] = {
    "means": ({"latents_mean": [0.1] * 4}, "a VAE with latents_mean is not supported"),
    "deviations": ({"latents_std": [0.1] * 4}, "a VAE with latents_std is not supported"),
    "shift": (
        {"shift_factor": 0.1},
        "a VAE with shift_factor is not supported; expected scaling_factor alone; got 0.1",
    ),
    "grey": ({"in_channels": 1}, "a VAE with in_channels 1 is not supported; expected 3"),
    "with an outline": ({"out_channels": 4}, "a VAE with out_channels 4 is not supported"),
    "another class": ({"_class_name": "AutoencoderKLWan"}, "a VAE of class AutoencoderKLWan is not supported"),
    "more channels": ({"latent_channels": 16}, "UNet and VAE do not fit together; expected 4 latent channels; got 16"),
}


@pytest.mark.parametrize("name", VAES)
def test_other_vaes_are_refused_by_name(name: str, checkpoint: Path) -> None:
    changes, said = VAES[name]
    change(checkpoint / "vae/config.json", **changes)
    with pytest.raises(CheckpointError, match=said):
        check_teacher(checkpoint)
    if name != "more channels":
        with pytest.raises(CheckpointError, match=said):
            VaeEncoder.from_checkpoint(checkpoint)


def test_values_that_say_nothing_are_not_minded(checkpoint: Path) -> None:
    change(checkpoint / "vae/config.json", latents_mean=None, latents_std=None, shift_factor=0.0)
    check_teacher(checkpoint)
    assert VaeEncoder.from_checkpoint(checkpoint).scaling_factor == 0.5


def test_a_tiny_autoencoder_is_refused_by_name(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "vae")
    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(
        checkpoint / "vae"
    )
    for ask in (check_teacher, VaeEncoder.from_checkpoint):
        with pytest.raises(
            CheckpointError, match=r"a VAE of class AutoencoderTiny is not supported.*AutoencoderKL into"
        ):
            ask(checkpoint)


def test_the_refiner_is_refused_by_name(checkpoint: Path) -> None:
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(checkpoint / name)
    with pytest.raises(CheckpointError, match="the SDXL refiner is not supported"):
        check_teacher(checkpoint)


def _lacking(checkpoint: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = checkpoint / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_out.bias"]
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_lacking, r"not those of UNet2DConditionModel as config.json describes it.*1 missing \(conv_out.bias\)"),
        (lambda folder: change(folder / "unet/config.json", norm_num_groups=3), "UNet2DConditionModel"),
        (lambda folder: change(folder / "unet/config.json", block_out_channels=[8, 24]), "UNet2DConditionModel"),
    ],
)
def test_a_unet_of_other_tensors_is_refused(damage: Callable[[Path], None], said: str, checkpoint: Path) -> None:
    damage(checkpoint)
    for ask in (Teacher.from_checkpoint, load_pipeline):
        with pytest.raises(CheckpointError, match=said) as caught:
            ask(checkpoint)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_vae_of_other_tensors_is_refused(checkpoint: Path) -> None:
    change(checkpoint / "vae/config.json", layers_per_block=2)
    for ask in (VaeEncoder.from_checkpoint, load_pipeline):
        with pytest.raises(CheckpointError, match=r"not those of AutoencoderKL.* missing \("):
            ask(checkpoint)


def test_a_pipeline_of_other_noise_is_not_drawn_with(checkpoint: Path) -> None:
    change(checkpoint / "scheduler/scheduler_config.json", _class_name="EDMEulerScheduler")
    with pytest.raises(CheckpointError, match="unsupported scheduler"):
        load_pipeline(checkpoint)


def test_old_names_of_the_vaes_attention_are_known(checkpoint: Path) -> None:
    """Checkpoints from before diffusers 0.15 call them query, key, value, proj_attn."""
    from safetensors.torch import load_file, save_file

    path = checkpoint / "vae/diffusion_pytorch_model.safetensors"
    before = VaeEncoder.from_checkpoint(checkpoint).vae.state_dict()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        tensors[name] = tensor
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    after = VaeEncoder.from_checkpoint(checkpoint).vae.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["sd15", "sdxl"])
def test_without_a_mid_block_everything_agrees(shape: Any, tmp_path: Path) -> None:
    """KOALA, BK-SDM and tiny-sd have none."""
    checkpoint = make_checkpoint(tmp_path, shape)
    config = read_config(checkpoint / "unet", "UNet") | NO_MID
    UNet2DConditionModel.from_config(config).save_pretrained(checkpoint / "unet")
    teacher, blocks = Teacher.from_checkpoint(checkpoint, query_layers="all"), unet_blocks(config)
    assert blocks == ("down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1") == teacher.blocks
    pooled = torch.zeros(1, 12) if shape == "sdxl" else None
    text = Conditioning(torch.zeros(1, 4, int(config["cross_attention_dim"])), pooled)
    output = teacher.forward(torch.zeros(1, 4, 8, 8), torch.tensor([5]), text, torch.zeros(1, 6), "all")
    shapes = {name: tuple(feature.shape[1:]) for name, feature in output.features.items()}
    assert block_shapes(config, (8, 8)) == shapes and tuple(shapes) == blocks
    assert (
        set(query_shapes(config, (8, 8)))
        == set(output.queries)
        == set(AttentionLayers.from_checkpoint(checkpoint).names)
    )
    assert unet_flops(config, (4, 8, 8)) > 0


@pytest.mark.parametrize("middle", [{}, {"mid_block_type": "UNetMidBlock2D"}, NO_MID])
def test_blocks_are_those_of_the_model(middle: dict[str, Any], sdxl: Path) -> None:
    config = {key: value for key, value in read_config(sdxl / "unet", "UNet").items() if key != "mid_block_type"}
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config | middle)
    named = {name for name, _ in unet.named_children()} & {"mid_block"} if unet.mid_block is not None else set()
    assert {name for name in unet_blocks(config | middle) if name == "mid_block"} == named


def test_a_folder_too_high_or_too_low_is_said(sdxl: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/sdxl").symlink_to(sdxl)
    for place, said in (
        (tmp_path / "models", "no diffusers pipeline here; .*Give the folder itself: sdxl"),
        (sdxl / "unet", f"no diffusers pipeline here; .*Give the folder above: {sdxl}"),
        (tmp_path, r"no diffusers pipeline here; .*Give a diffusers pipeline folder"),
    ):
        with pytest.raises(CheckpointError, match=said):
            check_teacher(place)
    with pytest.raises(CheckpointError, match=r"no text encoder configuration; .*There is one in text_encoder, .*unet"):
        read_config(sdxl, "text encoder")


def test_a_size_that_fills_no_memory_is_refused(checkpoint: Path) -> None:
    change(checkpoint / "unet/config.json", sample_size=10**6)
    with pytest.raises(CheckpointError, match="an unusable sample_size; expected a whole number up to 4,096"):
        check_teacher(checkpoint)
