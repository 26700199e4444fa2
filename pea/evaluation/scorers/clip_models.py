"""CLIPs that scorers are made of: transformers' folders, and files in open_clip's form, each with its tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from pea.errors import CheckpointError
from pea.evaluation.scorers.weights import filled
from pea.models.imports.open_clip_models import clip_config, clip_state
from pea.models.imports.published import Published, read_published
from pea.models.imports.tokenizers import has_tokenizer
from pea.models.loading import load_model, load_tokenizer

_LEFT_OUT = re.compile(r"(^|\.)position_ids$|^(attn_mask|input_resolution|context_length|vocab_size)$")
"""Buffers and numbers that are not computed with."""
_OPEN_CLIP = "token_embedding.weight"
"""A name that only open_clip's form has."""


def load_clip(place: Path, model_cfg: Mapping[str, Any] | None = None) -> CLIPModel:
    """A CLIP in float32: a folder of transformers, or a file (or its folder) with open_clip's names.

    `model_cfg`: open_clip's configuration of the one model that is meant, where none lies beside the file.

    Raises:
        CheckpointError: nothing is there, it is of another kind, or tensors are missing, unknown or of another shape.
    """
    if not place.exists():
        raise CheckpointError("no such file or folder", where=place, remedy="Check the path in evaluate.scorers.")
    if place.is_dir() and any(place.glob("model*.safetensors")):
        return load_model(CLIPModel, place, torch.float32).model
    published = read_published(place)
    if _OPEN_CLIP in published.state:
        return _of_open_clip(published, model_cfg)
    if published.config.get("model_type") != "clip":
        got = published.config.get("model_type") or "no config.json"
        raise CheckpointError("no CLIP in a form that is known", where=published.weights, expected="clip", got=got)
    config = CLIPConfig(**{name: value for name, value in published.config.items() if name != "auto_map"})
    return filled(lambda: CLIPModel(config), published.state, published.weights, _LEFT_OUT)


def _of_open_clip(published: Published, model_cfg: Mapping[str, Any] | None) -> CLIPModel:
    own = _model_cfg(published.weights.parent / "open_clip_config.json")
    said = own or model_cfg
    if said is None:
        raise CheckpointError(
            "nothing says how many heads this CLIP has, nor which activation",
            where=published.weights,
            expected="open_clip_config.json beside it",
        )
    state = clip_state(published.state)
    try:
        if own is None:
            _check_widths(state, said)
        config = clip_config(state, said)
    except Exception as error:  # of many kinds: what a file says is put to a constructor unchecked
        got = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError("not a whole CLIP", where=published.weights, got=got) from error
    return filled(lambda: CLIPModel(config), state, published.weights, _LEFT_OUT)


def _model_cfg(path: Path) -> Mapping[str, Any] | None:
    """What open_clip's configuration says; a `config.json` may lie beside it and say nothing of the kind."""
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))["model_cfg"]
        return {**said, "text_cfg": dict(said["text_cfg"]), "vision_cfg": dict(said["vision_cfg"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("not a configuration of open_clip", where=path, got=repr(error)) from None


def _check_widths(state: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    names = {"text_cfg": "text_model.final_layer_norm.weight", "vision_cfg": "vision_model.post_layernorm.weight"}
    for tower, name in names.items():
        if name not in state or len(state[name]) != said[tower]["width"]:
            raise CheckpointError(
                "a CLIP of other sizes than the published one",
                expected=f"{name} of {said[tower]['width']}, or open_clip_config.json beside it",
                got=len(state.get(name, ())),
            )


def load_clip_tokenizer(place: Path, model: CLIPModel) -> Any:
    """CLIP's tokenizer from the folder of the weights.

    Raises:
        CheckpointError: there is none, or it is another model's.
    """
    folder = place if place.is_dir() else place.parent
    if not has_tokenizer(folder):
        raise CheckpointError(
            "no tokenizer beside the weights",
            where=folder,
            expected="vocab.json and merges.txt, or tokenizer.json, of CLIP",
            remedy="Copy them there: every SD1.5 has them in its folder `tokenizer`.",
        )
    tokenizer, text = load_tokenizer(CLIPTokenizer, folder), model.config.text_config
    end = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id  # 2: former files, where the last counts
    if len(tokenizer) != text.vocab_size or tokenizer.eos_token_id != end:
        raise CheckpointError(
            "the tokenizer is not this model's",
            where=folder,
            expected=f"{text.vocab_size} tokens, {end} the last of a text",
            got=f"{len(tokenizer)}, {tokenizer.eos_token_id}",
        )
    return tokenizer


def image_embeddings(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Of length 1, `[B, D]`, of pixels `[B, 3, S, S]`."""
    pooled = model.vision_model(pixel_values=pixels.to(model.device)).pooler_output
    return functional.normalize(model.visual_projection(pooled), dim=-1)


def text_embeddings(model: CLIPModel, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Of length 1, `[B, D]`; longer texts are cut to what the model reads."""
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    tokens = tokens.to(model.device)
    pooled = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
    return functional.normalize(model.text_projection(pooled), dim=-1)
