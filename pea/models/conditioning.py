"""What the UNet is told about the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Conditioning(NamedTuple):
    """What the UNet is told about the text."""

    encoder_hidden_states: Tensor
    """float `[B, L, D]`, read by cross-attention."""
    pooled_prompt_embeds: Tensor | None
    """float `[B, P]`, added to the time embedding; None for SD1.5-shaped teachers."""

    def take(self, rows: Sequence[int]) -> Conditioning:
        """Some rows, in this order."""
        pooled = self.pooled_prompt_embeds
        return Conditioning(self.encoder_hidden_states[list(rows)], None if pooled is None else pooled[list(rows)])


def on_device(states: Sequence[Tensor | None], device: torch.device | str) -> Conditioning:
    """Hidden states `[B, L, D]` and pooled embedding `[B, P]` (or None), as a conditioning on `device`."""
    hidden, pooled = states
    assert hidden is not None
    return Conditioning(hidden.to(device), None if pooled is None else pooled.to(device))
