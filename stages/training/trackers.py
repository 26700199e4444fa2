"""TensorBoard and Weights & Biases, through accelerate."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available, is_wandb_available

from pea.config import Config
from pea.errors import ConfigError

_AVAILABLE = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}


def chosen_trackers(config: Config) -> list[Any]:
    """What `Accelerator(log_with=...)` takes; accelerate would pass over a missing package without a word.

    Raises:
        ConfigError: a program's package is not installed.
    """
    missing = [name for name in config.train.trackers if not _AVAILABLE[name]()]
    if missing:
        raise ConfigError(
            "a tracker's package is not installed",
            where="train.trackers",
            got=", ".join(missing),
            remedy=f"pip install {' '.join(missing)}, or leave it out: train_log.jsonl holds the same rows.",
        )
    return list(config.train.trackers)


def start_trackers(accelerator: Accelerator, config: Config) -> None:
    """Open a run named after `run_dir`, with the settings of training."""
    if accelerator.log_with:
        settings = {f"train.{name}": value for name, value in config.train.model_dump(mode="json").items()}
        plain = {name: value for name, value in settings.items() if isinstance(value, int | float | str)}
        accelerator.init_trackers(config.run_dir.name, config=plain)


def finish_trackers(accelerator: Accelerator) -> None:
    """Close the run; `Accelerator.end_training` would also end the other processes' group."""
    for tracker in accelerator.trackers if accelerator.is_main_process else ():
        tracker.finish()
