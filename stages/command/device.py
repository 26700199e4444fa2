"""Which device a command works on."""

from __future__ import annotations

import torch

from data_tools.tables import count_of
from pea.errors import DeviceError


def pick_device(name: str, where: str = "device") -> torch.device:
    """`auto` is a GPU where there is one. ``where``: what asks for it.

    Raises:
        DeviceError: this machine has no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        got = f"{name}, beside {count_of(count, 'CUDA device')}"
        raise DeviceError("no such device on this machine", where=where, got=got)
    return device
