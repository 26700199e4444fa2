"""The sums of a count sketch, with a backward pass that gathers as the forward pass does.

Autograd's own backward of ``gather`` adds into scattered places: slower, and on a GPU in no fixed order.

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
        size = lines.shape[2]
        start = (size - turns) % size
        return (lines * signs).gather(2, _places(start, size)).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        """``grad[n, m] = signs[n, m] * gradient[(m + turns[n]) mod M]``."""
        signs, turns = ctx.saved_tensors
        (gradient,) = gradients
        size = gradient.shape[1]
        return gradient[:, None, :].expand_as(signs).gather(2, _places(turns, size)).mul_(signs), None, None


def _places(start: Tensor, size: int) -> Tensor:
    """``(start + m) mod size`` for each m: int64 [B, N, M] of int64 [B, N]."""
    double = torch.arange(2 * size, device=start.device)
    double[size:] -= size
    return double.unfold(0, size, 1)[start]
