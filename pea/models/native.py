"""The frozen encoders of native captions.

Shapes: B batch, L tokens, D width of the hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from pea.errors import CheckpointError
from pea.models.loading import load_part, load_tokenizer

MAX_NATIVE_TOKENS = 77
"""Longest native caption in tokens, where the encoder itself allows more."""


class NativeEncoder:
    """The frozen text encoder of another language: the text tower of a dual encoder, or a plain text model."""

    def __init__(self, model: nn.Module, tokenizer: Any, max_tokens: int) -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        max_tokens: int | None = None,
    ) -> NativeEncoder:
        """Load a transformers folder: Chinese-CLIP, AltCLIP, CLIP, a vision-text dual encoder, BERT, XLM-R, (m)T5...

        Raises:
            CheckpointError: the folder is missing, or holds no text model.
        """
        config = load_part(AutoConfig, folder, None)
        model = _text_tower(load_part(AutoModel, folder, dtype), folder)
        tokenizer = load_tokenizer(AutoTokenizer, folder)
        return cls(model.to(device), tokenizer, max_tokens or longest(tokenizer, config))

    @property
    def width(self) -> int:
        """Width D of the hidden states."""
        config: Any = self.model.config
        # AltCLIP projects its hidden states to the width that the English CLIP had.
        return int(getattr(config, "project_dim", None) or getattr(config, "hidden_size", None) or config.d_model)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> last hidden state float `[B, L, D]` and attention mask int64 `[B, L]`, padded to `max_tokens`."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        mask = tokens["attention_mask"].to(device)
        hidden = self.model(input_ids=tokens["input_ids"].to(device), attention_mask=mask).last_hidden_state
        return hidden, mask


def _text_tower(model: nn.Module, folder: Path) -> nn.Module:
    tower = getattr(model, "text_model", None)
    if tower is None and getattr(model.config, "is_encoder_decoder", False):
        tower = model.get_encoder()  # type: ignore[operator]
    if tower is None and hasattr(model, "get_input_embeddings"):
        tower = model
    if not isinstance(tower, nn.Module) or hasattr(tower.config, "patch_size"):
        raise CheckpointError("no text encoder in this model", where=folder, got=type(model).__name__)
    return tower


def longest(tokenizer: Any, config: Any) -> int:
    """Most tokens that both the tokenizer and the position embeddings allow, up to `MAX_NATIVE_TOKENS`."""
    text = getattr(config, "text_config", None) or config
    positions = getattr(text, "max_position_embeddings", None) or MAX_NATIVE_TOKENS
    if "roberta" in str(getattr(text, "model_type", "")) or getattr(config, "model_type", "") == "altclip":
        positions -= 1 + int(text.pad_token_id or 0)  # RoBERTa counts positions from after the padding's
    return int(min(positions, tokenizer.model_max_length, MAX_NATIVE_TOKENS))
