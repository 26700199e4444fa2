"""Writes a diffusers folder as one file in the layout of the original code, by its documented names of tensors.

Source: CompVis/latent-diffusion `ldm/modules/diffusionmodules/{openaimodel,model}.py`, mlfoundations/open_clip
`transformer.py`. Written apart from the reader, which is diffusers' own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}


def write_single_file(folder: Path, file: Path, **more: Tensor) -> Path:
    """A pipeline of SD1.5's or SDXL's shape, float32, with `more` tensors beside."""
    is_xl = (folder / "text_encoder_2").is_dir()
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in _unet(folder / "unet")}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in _vae(folder / "vae")}
    prefix = "conditioner.embedders.0.transformer." if is_xl else "cond_stage_model.transformer."
    for name, tensor in load_file(folder / "text_encoder/model.safetensors").items():
        tensors[prefix + "text_model." + name.removeprefix("text_model.")] = tensor
    if is_xl:
        tensors |= {f"conditioner.embedders.1.model.{n}": t for n, t in _open_clip(folder / "text_encoder_2")}
    save_file({name: tensor.contiguous() for name, tensor in (tensors | more).items()}, file)
    return file


def _unet(folder: Path) -> Iterator[tuple[str, Tensor]]:
    places = _unet_places(json.loads((folder / "config.json").read_text()))
    for name, tensor in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        start = max((each for each in places if name.startswith(f"{each}.")), key=len)
        rest = name.removeprefix(start)
        if ".resnets." in f"{start}.":
            part = rest.split(".")[1]
            rest = rest.replace(part, _UNET_RESNET[part], 1)
        yield places[start] + rest, tensor


def _unet_places(config: dict) -> dict[str, str]:
    """Module of diffusers -> module of the original: blocks are counted through, whatever is in them."""
    places, layers = dict(_UNET_ENDS), config["layers_per_block"]
    number = 1
    for block in range(len(config["down_block_types"])):
        for layer in range(layers):
            places[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{number}.0"
            places[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        places[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
        number += 1
    number = 0
    for block, kind in enumerate(config["up_block_types"]):
        for layer in range(layers + 1):
            places[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{number}.0"
            places[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        behind = 2 if "CrossAttn" in kind else 1
        places[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{behind}.conv"
    return places


def _vae(folder: Path) -> Iterator[tuple[str, Tensor]]:
    last = len(json.loads((folder / "config.json").read_text())["up_block_types"]) - 1
    for old, tensor in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", old)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda match: f"up.{last - int(match[1])}.block.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f"up.{last - int(match[1])}.upsample.", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0" in name:
            for new, original in _VAE_ATTENTION.items():
                name = name.replace(f"mid_block.attentions.0.{new}", f"mid.attn_1.{original}")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        yield name, tensor


def _open_clip(folder: Path) -> Iterator[tuple[str, Tensor]]:
    tensors = load_file(folder / "model.safetensors")
    for old, tensor in tensors.items():
        if old == "text_projection.weight":
            yield "text_projection", tensor.T
            continue
        name = old.removeprefix("text_model.")
        for new, original in _OPEN_CLIP.items():
            name = name.replace(new, original)
        if ".q_proj." in name:
            parts = [tensors[old.replace("q_proj", each)] for each in ("q_proj", "k_proj", "v_proj")]
            yield re.sub(r"\.q_proj\.(\w+)$", r".in_proj_\1", name), torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            yield name, tensor
