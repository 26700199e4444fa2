"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from pea.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a phase's step `step` (from 0): linear warmup, then constant, or a cosine that ends at 0."""
    peak, steps = config.learning_rate, config.steps
    assert peak is not None and steps is not None, "a phase's settings have every number filled in"
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return peak
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
