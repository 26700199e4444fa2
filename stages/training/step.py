"""One step of the optimizer, over several batches and processes; without a finite loss, none."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pea.batches.batch import Batch
from pea.config import Config
from pea.errors import TrainingError
from pea.plurals import count_of
from pea.training.schedule import learning_rate
from stages.training.checkpoints import Parts
from stages.training.losses import BatchLosses
from stages.training.phase import true_in_all_processes
from stages.training.row_groups import RowGroups, num_row_groups


class OptimizerStep:
    """`step(batches)` takes the next batches of a run and changes what is trained."""

    def __init__(
        self, config: Config, parts: Parts, wrapped: nn.Module, losses: BatchLosses, accelerator: Accelerator
    ) -> None:
        """`wrapped`: the adapter, or its distributed wrapper."""
        self.train, self.parts, self.wrapped, self.losses = config.train, parts, wrapped, losses
        self.accelerator = accelerator
        self.num_groups = num_row_groups(accelerator.device, accelerator.num_processes, self.train.batch_size)
        parameters = list(parts.trained.parameters.values())
        self.groups = RowGroups(losses, parameters, self.num_groups) if self.num_groups > 1 else None

    def __call__(self, batches: Iterator[tuple[int, Batch]]) -> None:
        """One step over `gradient_accumulation_steps` batches; skipped when a loss or gradient is not finite."""
        step = self.parts.counters.step
        for group in self.parts.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.train)
        self.parts.optimizer.zero_grad()
        finite, names = self._gradients(batches)
        norm = self._clipped_norm() if finite else None
        # With fp16, an overflow of the gradients is the scaler's business: it skips the step and lowers its scale.
        scaled = self.accelerator.scaler is not None
        if norm is not None and (scaled or true_in_all_processes(self.accelerator, torch.isfinite(norm).all())):
            self.parts.optimizer.step()
            self.parts.counters.streak = 0
            if self.parts.average is not None:
                self.parts.average.update(self.parts.trained.parameters)
        else:
            self._skip(names)
        self.parts.counters.step += 1

    def _gradients(self, batches: Iterator[tuple[int, Batch]]) -> tuple[bool, list[str]]:
        """Whether all losses of the step are finite, and its records' names; the gradients are left in place."""
        count = self.train.gradient_accumulation_steps
        finite, names = True, []
        for number in range(count):
            index, batch = next(batches)
            names += batch.names
            gradients = None
            if self.groups is None:
                losses = self.losses(batch, index)
            else:
                losses, gradients = self.groups(batch, index)
            finite = finite and true_in_all_processes(self.accelerator, torch.isfinite(losses.total).all())
            if finite:
                self.parts.meter.add(losses.report())
                if gradients is None:
                    self._backward(losses.total / count, last=number == count - 1)
                else:
                    self._add(gradients, 1 / count)
        return finite, names

    def _add(self, gradients: list[Tensor | None], factor: float) -> None:
        for parameter, gradient in zip(self.parts.trained.parameters.values(), gradients, strict=True):
            if gradient is not None:
                gradient = gradient * factor
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _backward(self, loss: Tensor, *, last: bool) -> None:
        if not last:
            with self.accelerator.no_sync(self.wrapped):
                self.accelerator.backward(loss)
            return
        self.accelerator.backward(loss)
        for parameter in self.parts.trained.unet_parameters.values():  # these are in no distributed wrapper
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def _clipped_norm(self) -> Tensor | None:
        """Of all gradients together, before they are clipped; with no limit they are measured and left as they are."""
        parameters, limit = list(self.parts.trained.parameters.values()), self.train.max_grad_norm
        norm: Tensor | None = self.accelerator.clip_grad_norm_(parameters, limit or math.inf)
        return norm

    def _skip(self, names: list[str]) -> None:
        self.parts.optimizer.zero_grad()
        counters = self.parts.counters
        counters.skipped, counters.streak = counters.skipped + 1, counters.streak + 1
        if counters.streak >= self.train.max_skipped_steps:
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise TrainingError(
                f"no finite loss in {count_of(counters.streak, 'consecutive step')}",
                where=f"step {counters.step}",
                got=f"records {shown}",
                remedy="Lower train.learning_rate, or use train.precision=bf16 or no.",
            )
