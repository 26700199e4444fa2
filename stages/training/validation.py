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

    def __init__(self, data: TrainingData, num_batches: int, trained: Trained, log: TrainLog) -> None:
        self.data, self.trained, self.log = data, trained, log
        self.num_batches = min(num_batches, data.batches_per_epoch)
        self.best_step, self.best_loss = 0, math.inf
        self.best: dict[str, Tensor] = {}

    def measure(self, step: int, losses: BatchLosses, average: MovingAverage | None) -> float:
        """The mean loss at a step, of the average where there is one; the best values are kept."""
        with self.trained.holding(None if average is None else average.tensors):
            means = [losses.undisturbed(self.data.batch(number)).total for number in range(self.num_batches)]
            loss = torch.stack(means).double().mean().item()
            if loss < self.best_loss:
                self.best_step, self.best_loss, self.best = step, loss, self.trained.copy()
        return loss

    def record(self) -> dict[str, Any]:
        """For a saved state, beside the tensors of `best`."""
        return {"best_step": self.best_step, "best_loss": self.best_loss if self.best else None}

    def restore(self, record: dict[str, Any], best: dict[str, Tensor]) -> None:
        """Put back what a saved state holds."""
        loss = record["best_loss"]
        self.best_step, self.best_loss, self.best = record["best_step"], math.inf if loss is None else loss, best
