"""What an encoder of native captions is to those who use one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pea.models.encoders.reading_limits import Part


class TextEncoder(Protocol):
    """What training and drawing ask of the encoder of native captions, be it one or two side by side."""

    @property
    def width(self) -> int:
        """Width D of the states."""

    @property
    def max_tokens(self) -> int:
        """Tokens L that every caption is padded to."""

    @property
    def record(self) -> dict[str, Any]:
        """Which it is and how it is read."""

    @property
    def parts(self) -> Sequence[Part]:
        """The encoders that read a caption side by side."""

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from, for messages."""

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move it."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> states float `[B, L, D]` and attention mask int64 `[B, L]`."""
