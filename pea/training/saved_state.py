"""Saved states of a training run, as safetensors and JSON: a resumed run equals an unbroken one.

A state is a folder `step-00000400/` that appears by one rename, so that a killed run leaves whole states only, and
`state.json` holds the digests of everything in it. No random generator needs saving: the batches are a pure function of
the step.
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

from pea.errors import DiskFullError, StorageError
from pea.file_names import SAVED_STATE
from pea.storage.digests import sha256_file, sha256_text
from pea.storage.durable import TEMPORARY, fsync_path, new_folder

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
        self.damaged: list[str] = []
        """Which states `newest` passed over, and why."""

    def save(self, state: TrainState) -> None:
        """Publish a state, and `tidy`.

        Raises:
            DiskFullError: the disk is full; former states are still there.
        """
        with new_folder(self.folder / f"step-{state.step:08d}") as temporary:
            files = {}
            for name, tensors in state.tensors.items():
                plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
                path = temporary / f"{name}.safetensors"
                _save_tensors(plain, path)
                files[path.name] = sha256_file(path)
            (temporary / SAVED_STATE).write_text(_sealed(state.record, files), "utf-8")
        self.tidy()

    def tidy(self) -> None:
        """Remove the oldest states, and what killed runs had not published: a folder has one writer.

        A power cut does not bring them back.
        """
        gone = (*self._folders()[: -self.keep], *self.folder.glob(f".step-*{TEMPORARY}*"))
        for old in gone:
            shutil.rmtree(old, ignore_errors=True)
        if gone:
            fsync_path(self.folder)

    def newest(self) -> TrainState | None:
        """The newest state that is what was saved, or None; damaged ones are passed over, and named in `damaged`.

        Raises:
            StorageError: one cannot be read, which says nothing about what it holds.
        """
        self.damaged = []
        for folder in reversed(self._folders()):
            try:
                return _read(folder)
            except OSError as error:
                raise StorageError("cannot read the saved state", where=folder, got=error.strerror) from error
            except _DamagedError as error:
                self.damaged.append(f"{folder.name} is damaged ({error})")
        return None

    def clear(self) -> None:
        """Remove every state, whole or half-written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))


class _DamagedError(Exception):
    """A state is not what was saved; the text says in which way."""


def _sealed(record: Record, files: dict[str, str]) -> str:
    """What `state.json` says; `files`: the digest of each other file."""
    content = json.loads(json.dumps({"record": record, "files": files}))  # as it will be read
    return json.dumps({**content, "sha256": _digest(content)}, indent=1, sort_keys=True)


def _digest(content: Record) -> str:
    return sha256_text(json.dumps({name: content[name] for name in ("files", "record")}, sort_keys=True))


def _read(folder: Path) -> TrainState:
    record, files = _read_record(folder)
    if files is not None:
        present = {path.name for path in folder.iterdir()} - {SAVED_STATE}
        for name in sorted(files.keys() | present):
            if name not in present or name not in files:
                raise _DamagedError(f"{name} is {'missing' if name in files else 'not a part of it'}")
            if sha256_file(folder / name) != files[name]:
                raise _DamagedError(f"{name} has other bytes than were saved")
    try:
        tensors = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    except SafetensorError as error:
        raise _DamagedError(str(error)) from None
    return TrainState(int(folder.name.removeprefix("step-")), record, tensors)


def _read_record(folder: Path) -> tuple[Record, dict[str, str] | None]:
    """The record, and the digests of the files; None in a state from before there were any."""
    try:
        content = json.loads((folder / SAVED_STATE).read_text("utf-8"))
    except FileNotFoundError:
        raise _DamagedError(f"{SAVED_STATE} is missing") from None
    except (ValueError, RecursionError):
        raise _DamagedError(f"{SAVED_STATE} is no JSON") from None
    if isinstance(content, dict) and "fingerprint" in content:
        return content, None
    try:
        intact = content["sha256"] == _digest(content)
    except (KeyError, TypeError):
        intact = False
    if not intact:
        raise _DamagedError(f"{SAVED_STATE} has other bytes than were saved")
    return content["record"], content["files"]


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
