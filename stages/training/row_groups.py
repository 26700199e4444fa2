"""A batch computed in groups of rows side by side, for training on a CPU.

The operations of a small batch are too short to be shared by several cores: in the demo on two cores, a step of 64 rows
takes about as long with two threads for each operation as with one, and 0.6 of that in two groups of one thread each.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pea.batches.batch import Batch
from pea.training.losses import Losses, joined
from stages.training.losses import BatchLosses

MIN_ROWS = 8
"""Fewest rows for which a thread is worth while."""


class RowGroups:
    """`groups(batch, index)`: the losses of a batch and their gradients; the sums are taken in one fixed order."""

    def __init__(self, losses: BatchLosses, parameters: Sequence[Tensor], num_groups: int) -> None:
        """`parameters`: what the gradients are taken with respect to."""
        self._losses, self._parameters, self._num_groups = losses, list(parameters), num_groups
        self._threads = ThreadPoolExecutor(num_groups, thread_name_prefix="pea-rows")

    def __call__(self, batch: Batch, index: int) -> tuple[Losses, list[Tensor | None]]:
        """Losses, detached, and the gradient of their total for each parameter (None: it does not depend on it)."""
        groups = batch.groups(self._num_groups)
        futures = [
            self._threads.submit(self._gradients, group, (index, number), len(group) / len(batch))
            for number, group in enumerate(groups)
        ]
        results = [future.result() for future in futures]
        losses = joined([(losses, len(group)) for (losses, _), group in zip(results, groups, strict=True)])
        return losses, [_sum(column) for column in zip(*(gradients for _, gradients in results), strict=True)]

    def _gradients(
        self, group: Batch, index: tuple[int, ...], share: float
    ) -> tuple[Losses, tuple[Tensor | None, ...]]:
        losses = self._losses(group, *index)
        return losses, torch.autograd.grad(losses.total * share, self._parameters, allow_unused=True)


def num_row_groups(device: torch.device, num_processes: int, batch_size: int) -> int:
    """In how many groups a batch is best computed; several processes divide the cores already."""
    if device.type != "cpu" or num_processes > 1:
        return 1
    return max(1, min(torch.get_num_threads(), batch_size // MIN_ROWS))


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    total = None
    for gradient in gradients:
        if gradient is not None:
            total = gradient if total is None else total + gradient
    return total
