"""The recommended rate and length of a phase, where the configuration leaves them out.

Rules, not laws: they were chosen on the small world, and are stated so that they can be doubted
(docs/guides/train_an_adapter.md). A stop by the validation loss (`train.patience`) ends what was planned too long.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pea.config import Phase

_RATE, _RECORDS_PER_STEP, _WIDTH = 2e-3, 64, 512
_MOST_RECORDS_PER_STEP = 256
_RECORDS_PER_ROOT = 800


def peak_learning_rate(records_per_step: int, hidden_size: int) -> float:
    """2e-3 at 64 records a step and a width of 512; with the root of the records (up to 256), and against the width.

    Source: the root for Adam, arXiv 2205.10287; the width for Adam's hidden layers, arXiv 2203.03466.
    """
    records = min(records_per_step, _MOST_RECORDS_PER_STEP)
    rate = _RATE * math.sqrt(records / _RECORDS_PER_STEP) * _WIDTH / hidden_size
    return float(f"{rate:.4g}")


def num_steps(records_per_step: int, num_samples: int) -> int:
    """As many steps as take 800 records for each root of a sample: 51,200 records of 4,096 samples."""
    return max(1, round(_RECORDS_PER_ROOT * math.sqrt(num_samples) / records_per_step))


def with_recipe(phase: Phase, hidden_size: int, num_processes: int, num_samples: Callable[[], int]) -> Phase:
    """The phase with every number filled in; `num_samples`: of the parallel corpus, asked where it is needed."""
    train = phase.train
    batches = train.gradient_accumulation_steps if phase.kind == "unet" else 1
    records = train.batch_size * batches * num_processes
    update: dict[str, float] = {}
    if train.learning_rate is None:
        update["learning_rate"] = peak_learning_rate(records, hidden_size)
    if train.steps is None:
        update["steps"] = num_steps(records, num_samples())
    return Phase(phase.kind, train.model_copy(update=update))
