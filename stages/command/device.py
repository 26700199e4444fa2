"""Which device a command works on."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
