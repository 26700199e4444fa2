"""What the teachers' UNets are conditioned on: English captions, as diffusers' pipelines encode them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pea.models.loading import load_part, load_tokenizer

English = tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]


def load_english(folder: Path, *, projected: bool) -> English:
    """Tokenizer and text encoder of a folder that a training of English wrote."""
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    name = "text_model_with_projection" if projected else "text_model"
    model = load_part(kind, folder / name, torch.float32).eval()
    return load_tokenizer(CLIPTokenizer, folder / "tokenizer"), model


def condition_on(
    encoders: list[English], texts: list[str], image_size_px: int, *, train_text: bool
) -> Callable[[Tensor], dict[str, Any]]:
    """Rows of `texts` -> what the UNet takes of them: encoded once, or each time where the encoder learns along."""
    if train_text:
        tokenizer, model = encoders[0]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        model.train()
        return lambda rows: {"encoder_hidden_states": model(ids[rows]).last_hidden_state}
    hidden, pooled = _encode_texts(encoders, texts)
    if pooled is None:
        return lambda rows: {"encoder_hidden_states": hidden[rows]}
    time_ids = torch.tensor([(image_size_px, image_size_px, 0, 0, image_size_px, image_size_px)])
    return lambda rows: {
        "encoder_hidden_states": hidden[rows],
        "added_cond_kwargs": {"text_embeds": pooled[rows], "time_ids": time_ids.expand(len(rows), -1)},
    }


@torch.inference_mode()
def _encode_texts(encoders: list[English], texts: list[str]) -> tuple[Tensor, Tensor | None]:
    """As the pipelines do: SD1.5 last hidden state; SDXL penultimate ones of both, and a pooled embedding."""
    sequences, pooled = [], None
    for tokenizer, model in encoders:
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        outputs = [model(ids, output_hidden_states=True) for ids in tokens.input_ids.split(256)]
        if len(encoders) == 1:
            sequences.append(torch.cat([output.last_hidden_state for output in outputs]))
        else:
            sequences.append(torch.cat([output.hidden_states[-2] for output in outputs]))
            pooled = torch.cat([output[0] for output in outputs])
    return torch.cat(sequences, dim=-1).clone(), None if pooled is None else pooled.clone()
