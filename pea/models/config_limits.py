"""What a configuration may ask of this machine before a weight is read: layers without number, strange forms."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pea.errors import CheckpointError

_MOST_LAYERS = 1000
_LAYERS = re.compile(r"layers?(_per_block)?$|^n_layer|^depths?$")
_PACKED = ("quantization_config", "compression_config")
_HEADS = re.compile(r"(^|_)heads?$")


def check_limits(config: Mapping[str, Any], where: object) -> None:
    """Refuse a configuration that no loader could follow: endless layers, NaN, weights in a packed form.

    Raises:
        CheckpointError: names the field.
    """
    if (packed := _packed_form(config)) is not None:
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


def _packed_form(config: Mapping[str, Any]) -> Any:
    """How the weights are packed, as the model says it or one of its parts; None: they are not."""
    for name, value in config.items():
        if name in _PACKED and value is not None:
            return value
        if isinstance(value, Mapping) and (found := _packed_form(value)) is not None:
            return found
    return None


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
