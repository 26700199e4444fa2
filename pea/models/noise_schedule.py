"""The noise schedule that a teacher was trained with, read off its scheduler's configuration; light to import.

Schedulers differ in how they walk back; what they share is the betas, and what the UNet predicts. Those are all that
caching and training read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pea.errors import CheckpointError
from pea.foreign_json import json_object

SCHEDULER_CONFIG = "scheduler_config.json"
_LOW = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
_HIGH = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
_SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DISCRETE: dict[str, Mapping[str, Any]] = {
    "DDPMScheduler": _LOW,
    "DDPMParallelScheduler": _LOW,
    "DDIMScheduler": _LOW,
    "DDIMParallelScheduler": _LOW,
    "PNDMScheduler": _LOW,
    "DPMSolverMultistepScheduler": _LOW,
    "DPMSolverSinglestepScheduler": _LOW,
    "DPMSolverSDEScheduler": _HIGH,
    "EulerDiscreteScheduler": _LOW,
    "EulerAncestralDiscreteScheduler": _LOW,
    "LMSDiscreteScheduler": _LOW,
    "HeunDiscreteScheduler": _HIGH,
    "KDPM2DiscreteScheduler": _HIGH,
    "KDPM2AncestralDiscreteScheduler": _HIGH,
    "UniPCMultistepScheduler": _LOW,
    "DEISMultistepScheduler": _LOW,
    "SASolverScheduler": _LOW,
    "LCMScheduler": _SCALED,
    "TCDScheduler": _SCALED,
}
"""Schedulers over discrete, variance-preserving steps, and the betas that each has where its file names none.

Source: diffusers 0.42, the signatures of these classes.
"""
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_MOST_STEPS = 1_000_000
_PREDICTION_TYPES = ("epsilon", "v_prediction")
_CONTINUOUS = ("use_flow_sigmas", "sigma_min", "sigma_max", "sigma_data")
"""Settings of schedulers that make other noise than their betas say."""


def schedule_fields(folder: Path) -> dict[str, Any]:
    """What counts of `<folder>/scheduler_config.json`, with the class's defaults, as `DDPMScheduler` takes it.

    Raises:
        CheckpointError: there is none, or it describes another kind of noise.
    """
    path = folder / SCHEDULER_CONFIG
    try:
        config = json_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError("no scheduler configuration", where=path, got=error) from None
    return used_fields(config, path)


def used_fields(config: Any, where: object) -> dict[str, Any]:
    """The same of a configuration as read.

    Raises:
        CheckpointError: it describes another kind of noise.
    """
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in DISCRETE:
        expected = "a scheduler over discrete steps with betas, such as " + ", ".join(list(DISCRETE)[:6:2])
        raise CheckpointError("unsupported scheduler", where=where, expected=expected, got=name or "no _class_name")
    for key in _CONTINUOUS:
        if config.get(key) not in (None, False):
            raise _unsupported(where, key, "none: noise by the betas", config[key])
    if config.get("timestep_type", "discrete") != "discrete":
        raise _unsupported(where, "timestep_type", "discrete", config["timestep_type"])
    return _checked(DISCRETE[name], config, where)


def _checked(defaults: Mapping[str, Any], config: Mapping[str, Any], where: object) -> dict[str, Any]:
    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in _PREDICTION_TYPES:
        raise CheckpointError(
            "unsupported prediction type", where=where, expected="epsilon or v_prediction", got=prediction_type
        )
    steps, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if type(steps) is not int or not 1 <= steps <= _MOST_STEPS:
        raise _unsupported(where, "num_train_timesteps", f"a whole number from 1 to {_MOST_STEPS:,}", steps)
    fields: dict[str, Any] = {"num_train_timesteps": steps, "prediction_type": prediction_type}
    if betas is not None:
        if not isinstance(betas, list) or len(betas) != steps or not all(map(_is_beta, betas)):
            raise _unsupported(where, "trained_betas", f"{steps} numbers between 0 and 1", f"{betas}"[:60])
        fields["trained_betas"] = betas
    else:
        fields |= {key: config.get(key, default) for key, default in defaults.items()}
        for key in ("beta_start", "beta_end"):
            if not _is_beta(fields[key]):
                raise _unsupported(where, key, "a number between 0 and 1", fields[key])
        if fields["beta_schedule"] not in _BETA_SCHEDULES:
            raise _unsupported(where, "beta_schedule", ", ".join(_BETA_SCHEDULES), fields["beta_schedule"])
    rescaled = config.get("rescale_betas_zero_snr")
    if rescaled not in (None, False, True):  # "false" would be true
        raise _unsupported(where, "rescale_betas_zero_snr", "true or false", rescaled)
    if rescaled:
        fields["rescale_betas_zero_snr"] = True
    return fields


def _is_beta(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 < value < 1


def _unsupported(where: object, key: str, expected: str, got: object) -> CheckpointError:
    return CheckpointError(f"unsupported scheduler setting {key}", where=where, expected=expected, got=got)
