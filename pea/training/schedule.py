"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from pea.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a phase's step `step` (from 0): linear warmup, then constant, or a cosine that ends at 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
