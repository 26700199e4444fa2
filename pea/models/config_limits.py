"""What a configuration may ask of this machine before a weight is read: layers without number, sizes, strange forms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pea.errors import CheckpointError
from pea.models.tensor_files import stored_tensors

_MOST_LAYERS = 1000
_LAYERS = re.compile(r"layers?(_per_block)?$|^n_layer|^depths?$")
_HEADS = re.compile(r"(^|_)heads?$")
_NUMBERS_BESIDE = 20_000_000
"""Numbers that a model may have without a file for them: a pooler, a head, tables that are computed."""


def check_limits(config: Mapping[str, Any], where: object) -> None:
    """Refuse a configuration that no loader could follow: endless layers, NaN, weights in a packed form.

    Raises:
        CheckpointError: names the field.
    """
    if (packed := config.get("quantization_config")) is not None:
        method = packed.get("quant_method") if isinstance(packed, Mapping) else packed
        raise CheckpointError(
            "quantized weights are not supported",
            where=where,
            expected="weights in 16 or 32 bits",
            got=f"quantization_config {method}",
            remedy="Give the model that they were made from.",
        )
    for name, value in _numbers(config, ""):
        last = name.rpartition(".")[2]
        if isinstance(value, float) and not math.isfinite(value):
            raise _unusable(where, name, "a number", value)
        if _LAYERS.search(last) and value > _MOST_LAYERS:
            raise _unusable(where, name, f"at most {_MOST_LAYERS:,} layers", value)
        if _HEADS.search(last) and value < 1:
            raise _unusable(where, name, "1 or more", value)


def check_size(model: nn.Module, folder: Path) -> None:
    """Refuse a model, on the meta device, that is far larger than the files that are to fill it.

    Raises:
        CheckpointError: it is; or a file is missing or is no safetensors file.
    """
    stored = sum(math.prod(each.shape) for each in stored_tensors(folder).values())
    needed = sum(each.numel() for each in (*model.parameters(), *model.buffers()))
    if needed > 2 * stored + _NUMBERS_BESIDE:
        raise CheckpointError(
            "config.json describes a far larger model than the weights are",
            where=folder,
            expected=f"about {stored:,} numbers, as in the files",
            got=f"{needed:,}",
            remedy="Give config.json and weights of one model.",
        )


def _numbers(value: Any, name: str) -> Iterator[tuple[str, int | float]]:
    """Every number in a configuration with its dotted name; those of a list have the list's."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _numbers(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _unusable(where: object, name: str, expected: str, value: object) -> CheckpointError:
    return CheckpointError(
        f"config.json says an unusable {name}", where=where, expected=expected, got=f"{value!r}"[:60]
    )
