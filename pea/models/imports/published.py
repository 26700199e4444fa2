"""The tensors and the configuration of a published model, whatever its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.foreign_json import json_object
from pea.models.imports.flax_files import read_flax
from pea.models.plain_files import read_plain
from pea.models.tensor_files import shards

_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "flax_model.msgpack",
)
"""Of weight files in a published folder, the preferred first."""
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack")
_CONFIGS = (MODEL_CONFIG, "open_clip_config.json")


@dataclass(frozen=True)
class Published:
    """A model as it was published."""

    weights: Path
    """Its file, or the index of its shards."""
    state: dict[str, Tensor]
    config: dict[str, Any]
    """What `config.json`, or else `open_clip_config.json`, beside the weights says; empty without one."""

    @property
    def is_flax(self) -> bool:
        """Whether it was a JAX model."""
        return self.weights.suffix == ".msgpack"

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without that beginning."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.state.items() if name.startswith(prefix)}


def read_published(source: Path) -> Published:
    """Read a file of weights, or the folder of one.

    Raises:
        CheckpointError: there is none, or it cannot be read as plain tensors.
    """
    weights = _find_weights(source)
    state = _read_shards(weights) if weights.suffix == ".json" else _read_file(weights)
    config: dict[str, Any] = {}
    for name in _CONFIGS:
        path = weights.parent / name
        if path.is_file():
            config = _read_json(path)
            break
    return Published(weights, state, config)


def _find_weights(source: Path) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise CheckpointError("no such file or folder", where=source)
    known = [source / name for name in _NAMES if (source / name).is_file()]
    found = known or sorted(path for path in source.iterdir() if path.suffix in _ENDINGS)
    if not found or (not known and len(found) > 1):
        raise CheckpointError(
            "several files of weights" if found else "no file of weights",
            where=source,
            expected=f"one of {', '.join(_NAMES)}, or one file ending in {', '.join(_ENDINGS)}",
            got=", ".join(path.name for path in found[:5]) or "none",
            remedy="Name the file itself.",
        )
    return found[0]


def _read_shards(index: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for path in shards(index):
        state |= _read_file(path)
    return state


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".msgpack":
        return read_flax(path)
    return _tensors_of(read_plain(path), path)


def _tensors_of(loaded: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without what a trainer put around them."""
    for name in ("state_dict", "model", "module"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
            break
    if not isinstance(loaded, Mapping):
        raise CheckpointError("no tensors by name in this file", where=path, got=type(loaded).__name__)
    state = {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
    if state and all(name.startswith("module.") for name in state):  # DistributedDataParallel
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError("cannot read this file", where=path, expected="a JSON object", got=error) from None
