"""The best adapter so far, by the loss on samples that are held out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pea.batches.dataset import TrainingData
from pea.models.trainable import Trained
from pea.training.saved_state import MovingAverage
from pea.training.train_log import TrainLog
from stages.training.losses import BatchLosses


class Validation:
    """Measures the loss on always the same held-out batches and remembers the values of the best step."""

    def __init__(
        self, data: TrainingData, num_batches: int, trained: Trained, log: TrainLog, patience: int | None = None
    ) -> None:
        """`patience`: measurements in a row without a lower loss after which training is over; None: any number."""
        self.data, self.trained, self.log, self.patience = data, trained, log, patience
        self.num_batches = min(num_batches, data.batches_per_epoch)
        self.best_step, self.best_loss = 0, math.inf
        self.best: dict[str, Tensor] = {}
        self.num_since_best = 0

    @property
    def is_over(self) -> bool:
        """Whether the loss has stopped falling."""
        return self.patience is not None and self.num_since_best >= self.patience

    def measure(self, step: int, losses: BatchLosses, average: MovingAverage | None) -> float:
        """The mean loss at a step, of the average where there is one; the best values are kept."""
        with self.trained.holding(None if average is None else average.tensors):
            means = [losses.undisturbed(self.data.batch(number)).total for number in range(self.num_batches)]
            loss = torch.stack(means).double().mean().item()
            self.num_since_best += 1
            if loss < self.best_loss:
                self.num_since_best = 0
                self.best_step, self.best_loss, self.best = step, loss, self.trained.copy()
        return loss

    def record(self) -> dict[str, Any]:
        """For a saved state, beside the tensors of `best`."""
        best_loss = self.best_loss if self.best else None
        return {"best_step": self.best_step, "best_loss": best_loss, "num_since_best": self.num_since_best}

    def restore(self, record: dict[str, Any], best: dict[str, Tensor]) -> None:
        """Put back what a saved state holds."""
        loss, self.num_since_best = record["best_loss"], record.get("num_since_best", 0)
        self.best_step, self.best_loss, self.best = record["best_step"], math.inf if loss is None else loss, best
