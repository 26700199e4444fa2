"""Two frozen encoders side by side: a multilingual one and one of the language itself.

Token by token, the states of the one stand before those of the other, so that the widths add up and the length is one.
Source: arXiv 2311.17086: OPPO-Mente-Lab/PEA-Diffusion, train_sdxl_zh.py ("Mul clip + Chinese clip").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from pea.errors import CheckpointError
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.encoders.traits import PAIR_TOKENS, token_limit
from pea.models.loading import load_part, load_tokenizer
from pea.models.native import NativeEncoder


class EncoderPair:
    """Reads every caption with both encoders; used like a `NativeEncoder`."""

    def __init__(self, parts: Sequence[NativeEncoder]) -> None:
        self.parts = tuple(parts)

    @property
    def width(self) -> int:
        """Width of the states of both."""
        return sum(part.width for part in self.parts)

    @property
    def max_tokens(self) -> int:
        """Tokens that every caption is padded to, by both."""
        return self.parts[0].max_tokens

    @property
    def record(self) -> dict[str, Any]:
        """As `NativeEncoder.record`, with the values of both in lists where there are two."""
        records = [part.record for part in self.parts]
        both: dict[str, Any] = {name: [record[name] for record in records] for name in records[0]}
        return both | {"name": " + ".join(both["name"]), "max_tokens": self.max_tokens}

    @property
    def folder(self) -> Path | None:
        """Of the first, for messages."""
        return self.parts[0].folder

    def to(self, device: torch.device | str) -> EncoderPair:
        """Move both models."""
        for part in self.parts:
            part.to(device)
        return self

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> states float `[B, L, D1 + D2]`, and a mask int64 `[B, L]` of what is text for either."""
        (hidden, mask), (other_hidden, other_mask) = (part.encode(texts) for part in self.parts)
        return torch.cat([hidden, other_hidden], dim=-1), torch.maximum(mask, other_mask)


def load_encoder(
    folders: Path | Sequence[Path],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    reading: Mapping[str, Any] | None = None,
) -> TextEncoder:
    """The encoder in a folder, or the two in two folders. `reading`: as for `NativeEncoder.from_pretrained`.

    A value of `reading` that is a list holds one for each.

    Raises:
        CheckpointError: a folder is missing, holds no text model, or can't be read so.
    """
    given = [folders] if isinstance(folders, Path) else list(folders)
    wanted = dict(reading or {})
    if len(given) == 1 and any(isinstance(value, list | tuple) for value in wanted.values()):
        raise CheckpointError("the adapter was trained for two text encoders", where=given[0], got="one")
    if len(given) == 1:
        return NativeEncoder.from_pretrained(given[0], dtype, device, wanted)
    if len(given) != 2:
        raise CheckpointError("one text encoder, or two side by side", got=len(given))
    if wanted.get("max_tokens") is None:
        wanted["max_tokens"] = min(PAIR_TOKENS, *map(_limit, given))
    each = [{name: _one_of(value, index) for name, value in wanted.items()} for index in (0, 1)]
    loaded = (NativeEncoder.from_pretrained(*pair) for pair in zip(given, [dtype] * 2, [device] * 2, each, strict=True))
    return EncoderPair(tuple(loaded))


def _one_of(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, list | tuple) else value


def _limit(folder: Path) -> int:
    return token_limit(load_part(AutoConfig, folder, None), load_tokenizer(AutoTokenizer, folder))
