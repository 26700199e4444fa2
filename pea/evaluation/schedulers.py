"""The schedules that images are drawn with, by short names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from pea.errors import ConfigError

SCHEDULERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "dpm": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "unipc": UniPCMultistepScheduler,
    "lcm": LCMScheduler,
}
"""Name -> diffusers' class; `dpm` is DPM-Solver++ of second order."""


def make_scheduler(name: str, settings: Mapping[str, Any], num_inference_steps: int) -> Any:
    """A new scheduler with the noise of a checkpoint's own (`settings`: its configuration).

    Raises:
        ConfigError: it cannot take so many steps.
    """
    scheduler = SCHEDULERS[name].from_config(settings)
    try:
        scheduler.set_timesteps(num_inference_steps)
    except ValueError as error:
        raise ConfigError(
            f"the scheduler {name} cannot take these steps", got=f"{num_inference_steps}: {error}"
        ) from error
    return scheduler
