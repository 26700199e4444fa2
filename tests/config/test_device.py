"""Names of devices: the same ones in settings and in options."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pea.config import EvaluateConfig
from pea.config.device import is_device_name


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_names_of_devices(name: str) -> None:
    assert is_device_name(name) and EvaluateConfig(device=name).device == name


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cpu\n", "cuda:", "cuda:-1", "cuda:٣", "cuda:0,1", "mps"])
def test_what_is_no_name_of_one(name: str) -> None:
    assert not is_device_name(name)
    with pytest.raises(ValidationError, match="device"):
        EvaluateConfig(device=name)
