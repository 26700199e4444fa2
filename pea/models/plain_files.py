"""A file of weights, read as plain tensors; nothing in it is executed."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file

from pea.errors import CheckpointError
from pea.foreign_json import POINTER, is_pointer

_HEAD_BYTES = 64
_TORCH_STARTS = (b"PK", b"\x80")
"""Of what torch.save writes: a zip, formerly a pickle."""
_FORBIDDEN = re.compile(r"(?:GLOBAL|Unsupported (?:global|class):?(?: GLOBAL)?) ([\w.]+)")
"""How torch says what it does not load. Source: torch, _weights_only_unpickler.py."""


def read_plain(path: Path) -> Any:
    """What a `.safetensors` file, or else one of `torch.save`, holds: mostly tensors by their names, on the CPU.

    Raises:
        CheckpointError: it cannot be read, or holds more than plain tensors, numbers and texts.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise CheckpointError("cannot read the weights", where=path, got=error.strerror) from None
    if not head or is_pointer(head):
        raise CheckpointError("cannot read the weights", where=path, got=POINTER if head else "an empty file")
    if path.suffix != ".safetensors" and not head.startswith(_TORCH_STARTS):
        expected, got = "a file of torch.save, or .safetensors", f"one that begins with {head[:16]!r}"
        raise CheckpointError("cannot read the weights", where=path, expected=expected, got=got)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything from UnpicklingError to zipfile errors
        if (code := _code_in(error)) is not None:
            raise CheckpointError(
                "the file holds more than plain tensors, and nothing in it is run",
                where=path,
                got=code,
                remedy="Save its state_dict() where you trust it.",
            ) from error
        got = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError("cannot read the weights", where=path, got=got, remedy="Get the file again.") from error


def _code_in(error: Exception) -> str | None:
    """What would have been run; None: the file is of another kind, or cut short."""
    if "TorchScript" in str(error):
        return "a TorchScript program"
    if found := _FORBIDDEN.search(str(error)):
        return found[1]
    is_pickle = isinstance(error, UnpicklingError) or "weights_only" in str(error)
    return "a pickle, or another kind of file" if is_pickle else None
