"""Small pieces that every training of the world's models shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pea.storage.durable import share_files

Report = Callable[[int, int, Tensor], None]
"""Told of (step, steps, loss) after every step."""


def minibatches(tensors: tuple[Tensor, ...], batch_size: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Endless shuffled minibatches, a new permutation for each epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(tensors[0]), generator=generator)
        for rows in order.split(batch_size):
            if len(rows) == batch_size:
                yield tuple(tensor[rows] for tensor in tensors)


def cosine_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: int = 50
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to 2 % of the peak; of no steps, one that is never asked again."""

    def factor(step: int) -> float:
        progress = min(1.0, step / max(1, steps))
        return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    loss: Tensor,
) -> None:
    """One optimizer step with the gradient norm clipped to 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()


def save_model(model: nn.Module, folder: Path) -> None:
    """Save in float16, which halves what the repository ships; loaders ask for float32 again."""
    model.to(torch.float16).save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
    share_files(folder)
