"""ImageReward: a BLIP that reads caption and image together, and linear layers that learnt what people preferred.

Its own package is of 2023 and does not import beside present libraries: the architecture is built of transformers'
BLIP, and every tensor of the published file has its place in that.

Source: Xu et al., ImageReward (arXiv 2304.05977); THUDM/ImageReward, ImageReward/ImageReward.py and models/BLIP.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from pea.errors import CheckpointError
from pea.evaluation.drawing import Images
from pea.evaluation.scorers.heads import LinearLayers
from pea.evaluation.scorers.pixels import cropped_pixels
from pea.evaluation.scorers.scorer import Scorer, scorer_digest
from pea.evaluation.scorers.weights import filled
from pea.models.imports.published import read_published
from pea.models.imports.tokenizers import has_tokenizer
from pea.models.loading import load_tokenizer

_MEAN, _STD = 0.16717362830052426, 1.0333394966054072
"""Of the rewards in its training data, as published."""
_MAX_TOKENS = 35
_HEAD_WIDTH = 64
"""Of BLIP's vision towers, base and large."""
_NAMES = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision.encoder.layers.\1.self_attn.qkv."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^blip\.text_encoder\.", "text."),
    (r"^mlp\.", "head."),
)
_SAID = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps"),
)
"""Fields of `med_config.json` that count."""
_LEFT_OUT = re.compile(r"^blip\.(vision|text)_proj\.|\.position_ids$")
"""Projections of BLIP's pre-training, which no score uses, and a count of positions."""


class _ImageReward(nn.Module):
    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        super().__init__()
        self.vision, self.text = BlipVisionModel(vision), BlipTextModel(text, add_pooling_layer=False)
        self.head = LinearLayers(text.hidden_size)

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """`[B, 3, S, S]`, `[B, L]` -> `[B]`."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        )
        reward: Tensor = self.head(read.last_hidden_state[:, 0])
        return (reward - _MEAN) / _STD


class ImageReward(Scorer):
    """Rewards of mean 0 and spread 1 over the images that it learnt from."""

    name = "image_reward"

    def __init__(self, model: _ImageReward, tokenizer: Any, device: torch.device | str) -> None:
        vision, text = model.vision.config, model.text.config
        said = [vision.num_attention_heads, text.num_attention_heads, text.hidden_act, text.layer_norm_eps]
        super().__init__(model, device, scorer_digest(model, tokenizer, {"name": self.name, "config": said}))
        self.tokenizer, self.image_size = tokenizer, int(vision.image_size)

    @classmethod
    def load(cls, place: Path, device: torch.device | str = "cpu") -> ImageReward:
        """From `ImageReward.pt` or its folder; `med_config.json` and BERT's tokenizer lie beside it.

        Raises:
            CheckpointError: something is missing or of another kind.
        """
        if not place.exists():
            raise CheckpointError("no such file or folder", where=place, remedy="Check the path in evaluate.scorers.")
        published = read_published(place)
        folder = published.weights.parent
        state = _renamed(published.state)
        try:
            vision, text = _configs(state, json.loads((folder / "med_config.json").read_text("utf-8")))
        except Exception as error:  # noqa: BLE001 - what the file says is put to constructors unchecked
            raise CheckpointError(
                "not an ImageReward",
                where=published.weights,
                expected="its tensors, and med_config.json beside them",
                got=" ".join(f"{type(error).__name__}: {error}".split())[:200],
                remedy="Both are published together.",
            ) from None
        model = filled(lambda: _ImageReward(vision, text), state, published.weights, _LEFT_OUT)
        return cls(model, _tokenizer(folder, text), device)

    def score_batch(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Rewards; captions are cut to 35 tokens, as published."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        pixels = cropped_pixels(images, self.image_size).to(self.device)
        answer: Tensor = self.model(pixels, tokens.input_ids, tokens.attention_mask)
        return answer


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By their names in `_ImageReward`; what is not known keeps its own."""
    renamed = {}
    for name, tensor in state.items():
        fitting = (re.sub(old, new, name) for old, new in _NAMES if re.search(old, name))
        renamed[name if _LEFT_OUT.search(name) else next(fitting, name)] = tensor
    return renamed


def _configs(state: Mapping[str, Tensor], said: Mapping[str, Any]) -> tuple[BlipVisionConfig, BlipTextConfig]:
    patches, places = state["vision.embeddings.patch_embedding.weight"], state["vision.embeddings.position_embedding"]
    width = len(patches)
    prefix = "vision.encoder.layers."
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(state[f"{prefix}0.mlp.fc1.weight"]),
        num_hidden_layers=len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)}),
        num_attention_heads=width // _HEAD_WIDTH,
        image_size=math.isqrt(places.shape[1] - 1) * patches.shape[-1],
        patch_size=patches.shape[-1],
        layer_norm_eps=1e-6,
        hidden_act="gelu",
    )
    unused = {"bos_token_id": None, "eos_token_id": None, "sep_token_id": None}
    text = BlipTextConfig(**{name: said[name] for name in _SAID}, encoder_hidden_size=width, pad_token_id=0, **unused)
    return vision, text


def _tokenizer(folder: Path, text: BlipTextConfig) -> Any:
    if not has_tokenizer(folder):
        raise CheckpointError(
            "no tokenizer beside the weights",
            where=folder,
            expected="vocab.txt, or tokenizer.json, of bert-base-uncased",
            remedy="Copy it there.",
        )
    tokenizer = load_tokenizer(BertTokenizer, folder)
    if not text.vocab_size - 2 <= len(tokenizer) <= text.vocab_size:  # BLIP adds two tokens, which no caption has
        raise CheckpointError(
            "the tokenizer is not this model's", where=folder, expected=f"{text.vocab_size} tokens", got=len(tokenizer)
        )
    return tokenizer
