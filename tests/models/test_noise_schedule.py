"""Schedulers by name: the betas, the prediction type and the zero-SNR rescaling of each; all other noise is refused."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from pea.errors import CheckpointError
from pea.models.noise_schedule import DISCRETE, schedule_fields, used_fields
from pea.models.unet import load_schedule


def written(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # of diffusers with numpy 2
@pytest.mark.parametrize("name", DISCRETE)
def test_the_betas_of_each_class_are_its_own(name: str, tmp_path: Path) -> None:
    kind = getattr(diffusers, name)
    if "dummy" in kind.__module__:
        pytest.skip("this scheduler needs a package that is not installed")
    parameters = inspect.signature(kind.__init__).parameters
    assert {key: parameters[key].default for key in DISCRETE[name]} == DISCRETE[name]
    short = {"_class_name": name, "num_train_timesteps": 50}
    for config in (short, short | {"beta_start": 0.001, "beta_end": 0.01, "beta_schedule": "scaled_linear"}):
        theirs = kind.from_config(config)
        ours = load_schedule(written(tmp_path, config))
        torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-6, atol=0)
        assert ours.config.prediction_type == theirs.config.get("prediction_type", "epsilon")


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_zero_terminal_snr(name: str, tmp_path: Path) -> None:
    config = {"_class_name": name, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    ours = load_schedule(written(tmp_path, config))
    theirs = diffusers.DDPMScheduler.from_config(config)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod) and ours.alphas_cumprod[-1] < 1e-7
    assert ours.config.prediction_type == "v_prediction"


def test_trained_betas(tmp_path: Path) -> None:
    betas = torch.linspace(0.001, 0.02, 20).tolist()
    config = {"_class_name": "DDIMScheduler", "trained_betas": betas, "num_train_timesteps": 20}
    assert torch.equal(load_schedule(written(tmp_path, config)).betas, torch.tensor(betas))
    with pytest.raises(CheckpointError, match="trained_betas; expected 10 numbers"):
        used_fields({**config, "num_train_timesteps": 10}, "here")


def test_infinity_in_what_is_not_read(tmp_path: Path) -> None:
    config = {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -math.inf}
    assert "-Infinity" in written(tmp_path, config).joinpath("scheduler_config.json").read_text()
    assert "lambda_min_clipped" not in schedule_fields(tmp_path)


REFUSED: dict[str, tuple[Any, str]] = {
    "EDM": ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "unsupported scheduler; .*got EDMEulerScheduler"),
    "EDM solver": ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "got EDMDPMSolverMultistepScheduler"),
    "flow matching": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "got FlowMatchEulerDiscreteScheduler"),
    "nothing": ({}, "got no _class_name"),
    "no object": ([1], "not a JSON object but a list"),
    "unheard of": ({"_class_name": "MyScheduler"}, "got MyScheduler"),
    "flow sigmas": ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas"),
    "continuous": ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "got continuous"),
    "sigmas": ({"_class_name": "EulerDiscreteScheduler", "sigma_max": 120.0}, "sigma_max"),
    "sample": ({"_class_name": "DDPMScheduler", "prediction_type": "sample"}, "unsupported prediction type"),
    "flow": ({"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}, "prediction type"),
    "other betas": ({"_class_name": "DDPMScheduler", "beta_schedule": "laplace"}, "beta_schedule; .*got laplace"),
    "no number": ({"_class_name": "DDPMScheduler", "beta_end": None}, "beta_end"),
    "too large": ({"_class_name": "DDPMScheduler", "beta_end": 1.5}, "beta_end"),
    "not finite": ({"_class_name": "DDPMScheduler", "beta_start": math.nan}, "beta_start"),
    "no truth": (
        {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": "false"},
        "expected true or false; got fal",
    ),
    "no steps": ({"_class_name": "DDPMScheduler", "num_train_timesteps": 0}, "num_train_timesteps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_noise_is_refused_by_name(name: str, tmp_path: Path) -> None:
    config, said = REFUSED[name]
    with pytest.raises(CheckpointError, match=said) as caught:
        load_schedule(written(tmp_path, config))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_no_scheduler_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no scheduler configuration"):
        load_schedule(tmp_path)
