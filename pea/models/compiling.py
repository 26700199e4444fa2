"""torch.compile for the teacher's passes, where a compiler is at hand."""

from __future__ import annotations

import torch
from torch import nn

from pea.errors import DeviceError
from pea.models.unet import Teacher


def compile_teacher(teacher: Teacher) -> None:
    """Compile the UNet block by block, on its first passes; what the hooks of blocks collect stays outside.

    Values may differ in their last bits from those of the same passes uncompiled, as they do between devices.

    Raises:
        DeviceError: nothing can be compiled here.
    """
    check_compiler(teacher.unet.device)
    unet = teacher.unet
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        if isinstance(block, nn.Module):
            block.forward = torch.compile(block.forward)


def check_compiler(device: torch.device) -> None:
    """Compile something tiny: what is missing is told now, and not in the middle of a tar.

    Raises:
        DeviceError: it does not work.
    """
    try:
        torch.compile(_double)(torch.ones(2, device=device))
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DeviceError(
            "torch.compile does not work here",
            where=f"cache.run.compile, {device}",
            got=lines[0],
            remedy="Install a C++ compiler such as g++ (on a GPU also triton), or set cache.run.compile to false.",
        ) from error


def _double(values: torch.Tensor) -> torch.Tensor:
    return values * 2
