"""The sums of count sketches, with backward passes that copy as the forward passes do.

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


class FoldAndAdd(Function):
    """Values times fixed signs, cut into lines, each line times its sign, and all lines added up.

    ``values`` float32 [B, V], ``signs`` float32 [V], ``line_signs`` float32 [B, N], M the length of a line, of which
    the last may be cut short -> float32 [B, M].
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, signs: Tensor, line_signs: Tensor, length: int) -> Tensor:
        """``out[m] = sum_n line_signs[n] * (signs * values)[n * M + m]``."""
        ctx.save_for_backward(signs, line_signs)
        ctx.length = length
        signed, whole = values * signs, values.shape[1] // length
        lines = signed[:, : whole * length].reshape(len(values), whole, length)
        with torch.autocast(values.device.type, enabled=False):
            sums = torch.bmm(line_signs[:, None, :whole], lines)[:, 0]
        rest = signed[:, whole * length :]
        if rest.shape[1]:
            sums[:, : rest.shape[1]].addcmul_(rest, line_signs[:, whole:])
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        """``grad[n * M + m] = line_signs[n] * signs[n * M + m] * gradient[m]``."""
        signs, line_signs = ctx.saved_tensors
        whole = signs.numel() // ctx.length
        values = gradients[0].new_empty(len(line_signs), signs.numel())
        lines = values[:, : whole * ctx.length].view(len(values), whole, ctx.length)
        torch.mul(line_signs[:, :whole, None], gradients[0][:, None, :], out=lines)
        rest = values[:, whole * ctx.length :]
        torch.mul(line_signs[:, whole:], gradients[0][:, : rest.shape[1]], out=rest)
        return values.mul_(signs), None, None, None


def _numbers(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)
