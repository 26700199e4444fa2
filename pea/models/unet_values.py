"""A few numbers out of a UNet's weights, by which one that is loaded already is recognized, in whatever type that is.

The digest of all tensors needs their files as they were; a pipeline has them in memory, cast, moved, or with a LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from pea.errors import CheckpointError
from pea.models.tensor_files import stored_tensors

_NUM_TENSORS, _NUM_VALUES = 8, 16
_FLOATS = {"F32", "F16", "BF16"}
_ALIKE = 0.5
"""Cosine of the recorded and the found numbers. Weights that were fine-tuned stay near 1; of others it is about 0."""


def unet_values(folder: Path) -> dict[str, str]:
    """Name -> 16 of its numbers as float16 in hexadecimal, of 8 weights of the UNet in ``folder``, first to last.

    Raises:
        CheckpointError: there are no safetensors weights.
    """
    tensors = stored_tensors(folder)
    names = sorted(name for name, each in tensors.items() if len(each.shape) > 1 and each.dtype in _FLOATS)
    found = {}
    for name in sorted({names[place] for place in _spread(len(names), _NUM_TENSORS)}):
        with safe_open(tensors[name].file, framework="pt") as file:
            found[name] = _some(file.get_tensor(name)).to(torch.float16).numpy().astype("<f2").tobytes().hex()
    return found


def told_apart(recorded: Mapping[str, str], unet: nn.Module, base: object) -> str | None:
    """What is to be said of a UNet that is not the one whose numbers were recorded; None: it is, or nothing is known.

    Weights that are quantized, or offloaded to where they cannot be read, are passed over. A LoRA beside them does not
    count, one that was merged into them does.

    Raises:
        CheckpointError: no such numbers were recorded.
    """
    expected = _numbers(recorded)
    found = (_likeness(numbers, _weight(unet, name)) for name, numbers in expected.items())
    likeness = [each for each in found if each is not None]
    if not likeness or min(likeness) == 1:
        return None
    if float(np.median(likeness)) < _ALIKE:
        return (
            f"its UNet is none of {base}, for which the adapter was trained, nor a fine-tune of that; "
            "it may draw something else than the prompt says"
        )
    return other_weights(base)


def other_weights(base: object) -> str:
    """What is to be said of a UNet of the right shape with other weights."""
    return (
        f"its UNet has other weights than that of {base}, for which the adapter was trained; "
        "with a fine-tune of that it draws, but how well nobody has measured"
    )


def _numbers(recorded: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        each = {name: np.frombuffer(bytes.fromhex(text), "<f2").astype(np.float32) for name, text in recorded.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError("no numbers of a UNet", where="base_model.values", got=error) from None
    return {name: torch.from_numpy(numbers) for name, numbers in each.items()}


def _weight(unet: nn.Module, name: str) -> Any:
    """The tensor of that name, also where the module is compiled, or a LoRA lies beside it; None: there is none."""
    module, _, last = name.rpartition(".")
    for place in (module, f"{module}.base_layer"):
        try:
            return getattr(getattr(unet, "_orig_mod", unet).get_submodule(place), last).detach()
        except AttributeError:
            continue
    return None


def _likeness(expected: Tensor, weight: Any) -> float | None:
    """1: the same numbers; else their cosine, at most just below 1. None: nothing can be said."""
    if weight is None:
        return 0.0
    if type(weight) is not Tensor or weight.is_meta or not weight.is_floating_point() or weight.itemsize < 2:
        return None
    found = _some(weight).float().cpu()
    if found.shape != expected.shape:
        return 0.0
    coarse = weight.dtype == torch.bfloat16 or bool((expected.bfloat16() == expected).all())
    rounding = 2.0**-7 if coarse else 2.0**-10  # a unit in the last place: it may have been rounded twice
    if bool(((found - expected).abs() <= rounding * expected.abs() + 2.0**-24).all()):
        return 1.0
    return min(float(functional.cosine_similarity(found, expected, dim=0)), 1 - 1e-6)


def _some(weight: Tensor) -> Tensor:
    flat = weight.flatten()
    return flat[torch.tensor(_spread(len(flat), _NUM_VALUES), device=flat.device)]


def _spread(length: int, count: int) -> list[int]:
    """At most ``count`` places from first to last."""
    return sorted({round(place) for place in np.linspace(0, length - 1, count)}) if length else []
