"""The teacher's own encoders of English captions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pea.errors import CheckpointError
from pea.models.conditioning import Conditioning
from pea.models.loading import check_vocabulary, load_part, load_tokenizer
from pea.models.teacher_parts import text_config


class EnglishEncoder:
    """The teacher's own text encoder (SD1.5) or encoders (SDXL), used as the diffusers pipelines use them."""

    def __init__(self, parts: Sequence[tuple[CLIPTokenizer, nn.Module]]) -> None:
        self.parts = [(tokenizer, model.requires_grad_(False).eval()) for tokenizer, model in parts]
        self._lock = threading.Lock()  # a tokenizer cannot be asked by two threads at once

    @classmethod
    def from_checkpoint(
        cls, folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> EnglishEncoder:
        """Load `tokenizer/` and `text_encoder/`, and for SDXL `tokenizer_2/` and `text_encoder_2/`.

        Raises:
            CheckpointError: a folder is missing or is not a CLIP text encoder.
        """
        kinds: list[tuple[str, type]] = [("", CLIPTextModel)]
        if (folder / "text_encoder_2").is_dir():
            kinds.append(("_2", CLIPTextModelWithProjection))
        parts = []
        for suffix, kind in kinds:
            tokenizer = load_tokenizer(CLIPTokenizer, folder / f"tokenizer{suffix}")
            check_english(tokenizer, folder / f"text_encoder{suffix}")
            parts.append((tokenizer, load_part(kind, folder / f"text_encoder{suffix}", dtype).to(device)))
        return cls(parts)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Captions -> the teacher's conditioning.

        SD1.5: the last hidden state after its layer norm. SDXL: the penultimate hidden states of both encoders side by
        side, and the projected pooled embedding of the second. Longer captions are cut at the tokenizer's limit.
        """
        if len(self.parts) == 1:
            return Conditioning(self._run(0, texts).last_hidden_state, None)
        outputs = [self._run(index, texts) for index in range(len(self.parts))]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return Conditioning(hidden, outputs[-1].text_embeds)

    def _run(self, index: int, texts: Sequence[str]) -> Any:
        tokenizer, model = self.parts[index]
        with self._lock:
            tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        return model(tokens.input_ids.to(model.device), output_hidden_states=True)


def check_english(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Refuse a tokenizer that is not the one of the CLIP text encoder in ``folder``.

    A CLIP reads its pooled embedding where the token of the end is, and elsewhere if its configuration names another;
    2 stands for the highest number. Source: transformers `CLIPTextTransformer.forward`.

    Raises:
        CheckpointError: it has more tokens, or another end.
    """
    config = text_config(folder)
    check_vocabulary(tokenizer, int(config.get("vocab_size", 49408)), folder)
    end, own = config.get("eos_token_id", 49407), tokenizer.eos_token_id
    if end not in (2, own):
        raise CheckpointError(
            "tokenizer and text encoder differ in the token that ends a text",
            where=folder,
            expected=f"eos_token_id {own}, or 2",
            got=str(end),
            remedy="Correct eos_token_id in config.json.",
        )
