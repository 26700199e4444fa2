"""The sums of a count sketch, with a backward pass that copies as the forward pass does.

Autograd's own backward adds into scattered places: slower, and on a GPU in no fixed order. A line that is turned is a
piece of the line written twice, so that turning copies pieces and needs no place for each value.

Shapes: B records, N lines of M values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class TurnAndAdd(Function):
    """Each line times its signs, turned to the right by its number of places, and all lines added up.

    ``lines`` float32 [B, N, M], ``signs`` float32 [B, N, M], ``turns`` int64 [B, N] in [0, M) -> float32 [B, M].
    """

    @staticmethod
    def forward(ctx: Any, lines: Tensor, signs: Tensor, turns: Tensor) -> Tensor:
        """``out[m] = sum_n (signs * lines)[n, (m - turns[n]) mod M]``."""
        ctx.save_for_backward(signs, turns)
        records, count, size = lines.shape
        twice = torch.cat([lines * signs] * 2, dim=2)
        record, line = _numbers(records, turns)[:, None], _numbers(count, turns)
        return twice.unfold(2, size, 1)[record, line, (size - turns) % size].sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        """``grad[n, m] = signs[n, m] * gradient[(m + turns[n]) mod M]``."""
        signs, turns = ctx.saved_tensors
        twice = torch.cat(gradients * 2, dim=1)
        pieces = twice.unfold(1, signs.shape[2], 1)[_numbers(len(turns), turns)[:, None], turns]
        return pieces.mul_(signs), None, None


def _numbers(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)
