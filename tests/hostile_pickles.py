"""Files of weights that would run something when they are unpickled, for tests that nothing does."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

WRITERS = ("torch", "pickle")


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def write_hostile(path: Path, trace: Path, writer: str, tensor: str = "weight") -> None:
    """A tensor of this name and a payload beside it, by `torch.save` or as a bare pickle."""
    held = {tensor: torch.zeros(2), "x": Payload(trace)}
    if writer == "torch":
        torch.save(held, path)
    else:
        path.write_bytes(pickle.dumps(held))
