"""A LoRA's file is looked at before a library makes matrices of what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pea.errors import CheckpointError
from pea.foreign_json import json_object
from pea.models.loaded_tensors import check_numbers
from pea.models.tensor_files import tensors_in

_SETTINGS = "lora_adapter_metadata"
"""Key of the header where diffusers keeps peft's settings as JSON. Source: diffusers, loaders/lora_base.py."""
_RANKS = ("r", "rank_pattern")
_TEXT_ENCODERS = ("text_encoder", "lora_te")
"""What names of their tensors begin with: diffusers', and kohya's sd-scripts."""


def check_lora(file: Path) -> None:
    """Refuse a LoRA that holds nothing, no finite numbers, or settings of another rank than its matrices.

    Raises:
        CheckpointError: it does, or is no whole safetensors file.
    """
    if others := [name for name, _ in tensors_in(file) if name.startswith(_TEXT_ENCODERS)]:
        raise CheckpointError(
            "a LoRA that changes text encoders is not supported: the adapter stands in their place",
            where=file,
            expected="a LoRA of the UNet alone",
            got=others[0],
        )
    sides = [side for _, tensor in tensors_in(file) for side in tensor.shape]
    if not sides:
        raise CheckpointError("this LoRA holds no matrices", where=file, remedy="Get it again, or remove it.")
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                tensor = opened.get_tensor(name)
                check_numbers(name, tensor, tensor.float(), file)
            settings = json_object((opened.metadata() or {}).get(_SETTINGS) or "{}")
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError("cannot load this LoRA", where=file, got=error) from None
    too_high = [rank for rank in _ranks(settings) if not 0 < rank <= max(sides)]
    if too_high:
        raise CheckpointError(
            "this LoRA's settings are not those of its matrices",
            where=file,
            expected=f"a rank from 1 to {max(sides)}",
            got=too_high[0],
        )


def _ranks(settings: dict[str, Any]) -> Iterator[int]:
    """Every rank in peft's settings, of each model (`unet.r`, `unet.rank_pattern`)."""
    for name, value in settings.items():
        if name.rpartition(".")[2] in _RANKS:
            each = value.values() if isinstance(value, dict) else [value]
            yield from (rank for rank in each if isinstance(rank, int))
