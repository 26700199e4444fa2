"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from pea.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warmup, then constant, or a cosine that ends at 0.

    The steps in text space have a warmup of their own, and the full rate after it.
    """
    in_text = step < config.text_steps
    step -= 0 if in_text else config.text_steps
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant" or in_text:
        return config.learning_rate
    last = config.steps - config.text_steps
    progress = (step - config.warmup_steps) / max(1, last - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
