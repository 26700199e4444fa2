"""Whole CLIPs whose tensors are named as in openai/CLIP and open_clip, as transformers' `CLIPModel`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import CLIPConfig

from pea.errors import CheckpointError
from pea.models.imports.towers import CLIP_BLOCK

_NAMES = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
_TURNED = ("text_projection", "visual.proj")
"""Matrices that stand on the right there, and on the left here."""
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")


def clip_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names in `CLIPModel`; a name that is not known stays as it is.

    Source: mlfoundations/open_clip, src/open_clip/model.py (`CLIP`), transformer.py; openai/CLIP, clip/model.py.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = _BLOCK.fullmatch(name)
        if block is None:
            renamed[_NAMES.get(name, name)] = tensor.T if name in _TURNED else tensor
            continue
        tower, index, part, ending = block.groups()
        layer = f"{'vision' if tower else 'text'}_model.encoder.layers.{index}"
        if part == "attn.in_proj":
            for letter, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{layer}.self_attn.{letter}_proj.{ending}"] = piece
        else:
            renamed[f"{layer}.{CLIP_BLOCK.get(part, part)}.{ending}"] = tensor
    return renamed


def clip_config(state: Mapping[str, Tensor], said: Mapping[str, Any]) -> CLIPConfig:
    """The configuration of renamed tensors; `said`: `model_cfg` of open_clip, for what no tensor tells.

    Raises:
        CheckpointError: a tensor is missing that sizes are read off.
    """
    words, positions = _take(state, _NAMES["token_embedding.weight"]), _take(state, _NAMES["positional_embedding"])
    patches, places = _take(state, _NAMES["visual.conv1.weight"]), _take(state, _NAMES["visual.positional_embedding"])
    activation = "quick_gelu" if said.get("quick_gelu") else "gelu"
    text, vision = said.get("text_cfg", {}), said.get("vision_cfg", {})
    projection = len(_take(state, "text_projection.weight"))
    return CLIPConfig(
        projection_dim=projection,
        text_config={
            "vocab_size": len(words),
            "hidden_size": words.shape[1],
            "intermediate_size": len(_take(state, "text_model.encoder.layers.0.mlp.fc1.weight")),
            "num_hidden_layers": _depth(state, "text_model"),
            "num_attention_heads": text.get("heads", 8),
            "max_position_embeddings": len(positions),
            "hidden_act": activation,
            "projection_dim": projection,
            "bos_token_id": len(words) - 2,
            "eos_token_id": len(words) - 1,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": len(patches),
            "intermediate_size": len(_take(state, "vision_model.encoder.layers.0.mlp.fc1.weight")),
            "num_hidden_layers": _depth(state, "vision_model"),
            "num_attention_heads": len(patches) // vision.get("head_width", 64),
            "image_size": math.isqrt(len(places) - 1) * patches.shape[-1],
            "patch_size": patches.shape[-1],
            "hidden_act": activation,
            "projection_dim": projection,
        },
    )


def _take(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise CheckpointError("a tensor of this CLIP is missing", expected=name)
    return state[name]


def _depth(state: Mapping[str, Tensor], tower: str) -> int:
    prefix = f"{tower}.encoder.layers."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
