"""Saved states of a training run, as safetensors and JSON: a resumed run equals an unbroken one.

A state is a folder `step-00000400/` that appears by one rename, so that a killed run leaves whole states only. No
random generator needs saving: the batches are a pure function of the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pea.errors import DiskFullError
from pea.storage.durable import new_folder

Record = dict[str, Any]


@dataclass(frozen=True)
class TrainState:
    """One saved state."""

    step: int
    """Optimizer steps done."""
    record: Record
    """Counters, and the `fingerprint` of the run."""
    tensors: dict[str, dict[str, Tensor]]
    """File name without suffix -> its tensors."""


class TrainStates:
    """The saved states of one run, newest last; only the last `keep` are kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, state: TrainState) -> None:
        """Publish a state and remove the oldest ones.

        Raises:
            DiskFullError: the disk is full; former states are still there.
        """
        with new_folder(self.folder / f"step-{state.step:08d}") as temporary:
            for name, tensors in state.tensors.items():
                plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
                _save_tensors(plain, temporary / f"{name}.safetensors")
            (temporary / "state.json").write_text(json.dumps(state.record, indent=1, sort_keys=True), "utf-8")
        for old in self._folders()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> TrainState | None:
        """The newest state that can be read, or None."""
        for folder in reversed(self._folders()):
            try:
                record = json.loads((folder / "state.json").read_text("utf-8"))
                tensors = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
            except (OSError, ValueError, SafetensorError):
                continue
            return TrainState(int(folder.name.removeprefix("step-")), record, tensors)
        return None

    def clear(self) -> None:
        """Remove every state, whole or half-written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # the library's own error for whatever the system refused, a full disk included
        raise DiskFullError(
            "cannot save the training state", where=path, got=error, remedy="Make room and run the same command again."
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimizer's state as `<parameter name>/<slot>` -> tensor; `names` in the order of its parameters."""
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}/{slot}": torch.as_tensor(v) for index, slots in state.items() for slot, v in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, slot = key.rsplit("/", 1)
        state.setdefault(names.index(name), {})[slot] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class MovingAverage:
    """Exponential moving average of named parameters: `average += (1 - decay) * (value - average)`."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone().float() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        """Take in the parameters after a step."""
        for name, value in parameters.items():
            self.tensors[name].lerp_(value.float(), 1 - self.decay)


def differing_names(a: object, b: object, prefix: str = "") -> list[str]:
    """Dotted names at which two JSON-like values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = []
        for key in sorted({*a, *b}):
            names += differing_names(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else str(key))
        return names
    return [] if a == b else [prefix]
