"""Whether a loaded model is what its file says: libraries start some rows anew after reading them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pea.errors import CheckpointError
from pea.models.tensor_files import StoredTensor, stored_tensors, weight_files

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_STORED_FLOATS = ("F64", "F32", "F16", "BF16")


@torch.no_grad()
def put_back(model: nn.Module, used: Sequence[str], folder: Path, *, may_be_converted: bool = False) -> dict[str, str]:
    """Compare the tensors that are used with the file's, in the model's types, and restore those that were changed.

    For example, transformers 5.23 zeroes the `[PAD]` row of Chinese-CLIP's embedding after loading it. A tensor that
    the library renames is found by its values. Returns name in the model -> name in the file.

    Args:
        model: as it was loaded.
        used: names of its tensors that are read.
        folder: of its safetensors.
        may_be_converted: do not mind tensors that the library makes from others of the file.

    Raises:
        CheckpointError: a tensor is not in the file, neither by name nor by value.
    """
    state = model.state_dict()
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in weight_files(folder)[0]]
        stored = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - no mapping
        found = _by_name(used, stored)
        for name, stored_name in list(found.items()):
            tensor = stored[stored_name].get_tensor(stored_name)
            if tensor.shape != state[name].shape:
                del found[name]
                continue
            check_numbers(name, tensor, state[name], folder)
            if not torch.equal(state[name], wanted := tensor.to(state[name].dtype)):
                state[name].copy_(wanted)
        rest = [name for name in used if name not in found]
        if rest:
            found |= _by_value({name: state[name] for name in rest}, stored)
            for name in rest:
                check_numbers(name, state[name], state[name], folder)
    changed = [name for name in used if name not in found]
    if changed and not may_be_converted:
        raise CheckpointError(
            "the library changes tensors of this model while it loads them",
            where=folder,
            expected="the tensors of the file",
            got=", ".join(changed[:3]) + (", ..." if len(changed) > 3 else ""),
        )
    return found


def check_numbers(name: str, stored: Tensor, wanted: Tensor, where: object) -> None:
    """Refuse a tensor whose numbers cannot be those of a trained model.

    `stored`: as in the file. `wanted`: as it is used.

    Raises:
        CheckpointError: they are whole numbers or 8 bits where others are used (quantized, without their scales), or
            infinite, or none, in the file or in the type that is used.
    """
    if not wanted.is_floating_point():
        return
    if stored.dtype not in _FLOATS:
        raise CheckpointError(
            "quantized weights are not supported",
            where=where,
            expected="weights in 16 or 32 bits",
            got=f"{name} in {str(stored.dtype).removeprefix('torch.')}",
            remedy="Give the model that they were made from.",
        )
    if not bool(torch.isfinite(stored.to(wanted.dtype)).all()):
        in_type = str(wanted.dtype).removeprefix("torch.")
        raise CheckpointError(
            "weights that are no finite numbers",
            where=where,
            got=f"{name}, in {in_type}",
            remedy="Load it in another type." if bool(torch.isfinite(stored).all()) else "Get the model again.",
        )


def _by_name(used: Sequence[str], stored: Mapping[str, Any]) -> dict[str, str]:
    """Name -> the stored name that is the same, or the same but for a prefix (`bert.`, `text_model.`) on one side."""
    found = {name: name for name in used if name in stored}
    ends: dict[str, list[str]] = {}
    for name in stored:
        for end in _ends(name):
            ends.setdefault(end, []).append(name)
    for name in used:
        if name not in found:
            fitting = ends.get(name) or [end for end in _ends(name) if end in stored]
            if len(fitting) == 1:
                found[name] = fitting[0]
    return found


def _ends(name: str) -> Iterator[str]:
    """A dotted name without its first part, without its first two parts, ..."""
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _by_value(tensors: dict[str, Tensor], stored: dict[str, Any]) -> dict[str, str]:
    """Name -> a stored tensor of the same values in the same order, whatever its name and shape."""
    wanted = {name: (tensor.dtype, _digest(tensor)) for name, tensor in tensors.items()}
    sizes, dtypes = {tensor.numel() for tensor in tensors.values()}, {dtype for dtype, _ in wanted.values()}
    known: dict[tuple[torch.dtype, str], list[str]] = {}
    for stored_name, file in stored.items():
        tensor = file.get_tensor(stored_name)
        if tensor.numel() in sizes:
            for dtype in dtypes:
                known.setdefault((dtype, _digest(tensor.to(dtype))), []).append(stored_name)
    return {name: _likest(name, known[key]) for name, key in wanted.items() if key in known}


def _likest(name: str, candidates: Sequence[str]) -> str:
    """The candidate that shares the longest end with a name: new biases are all zeros, and equal one another."""
    return max(sorted(candidates), key=lambda each: _common_end(each, name))


def _common_end(one: str, other: str) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def fitting(
    model: nn.Module, used: Sequence[str], folder: Path, unknown: Callable[[list[str]], Sequence[str]]
) -> list[str] | None:
    """Stored names of the tensors that are used, where the file has each by name and shape, and no others.

    `unknown`: those of the names beside them that nobody knows. Only headers are read, and the model may be on the meta
    device. None does not say that the file is wrong: a library may rename tensors as it loads them.
    """
    stored, state = stored_tensors(folder), model.state_dict(keep_vars=True)
    found = _by_name(list(state), stored)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    if any(name.removeprefix(prefix) != stored_name.removeprefix(prefix) for name, stored_name in found.items()):
        return None
    whole = {id(state[name]) for name in found if _is_alike(stored[found[name]], state[name])}
    if unknown(sorted(set(stored) - set(found.values()))) or any(id(state[name]) not in whole for name in used):
        return None
    read = {id(state[name]) for name in used}
    return [stored_name for name, stored_name in found.items() if id(state[name]) in read]


def _is_alike(stored: StoredTensor, wanted: Tensor) -> bool:
    is_usual = stored.dtype in _STORED_FLOATS or not wanted.is_floating_point()
    return stored.shape == tuple(wanted.shape) and is_usual


def other_shapes(model: nn.Module, folder: Path) -> list[str]:
    """`name (shape in the file), not (shape in the model)` of each tensor of another shape; only headers are read."""
    stored, state = stored_tensors(folder), model.state_dict()
    shapes = {
        name: (stored[found].shape, tuple(state[name].shape)) for name, found in _by_name(list(state), stored).items()
    }
    return [f"{name} {file}, not {own}" for name, (file, own) in sorted(shapes.items()) if file != own]
