"""The tensors of an adapter in the files that trainers leave: plain, DDP, Lightning, DeepSpeed.

Files are read as plain tensors; nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pea.models.loaded_tensors import check_numbers
from pea.models.plain_files import read_plain

_WRAPPERS = ("state_dict", "module", "model_state_dict", "model")
"""Keys that hold the model beside optimizer, step and so on: Lightning's, DeepSpeed's, and what many write by hand."""
_MODEL_STATES = "mp_rank_00_model_states.pt"
_OWN = re.compile(r"(layernorm|projector|fc)\.")


def read_adapter_tensors(path: Path) -> dict[str, Tensor]:
    """`layernorm.*`, `projector.*` and `fc.*`, float32, of a file, or of DeepSpeed's folder.

    What is beside the adapter in the file (UNet, text encoder, optimizer) is left out.

    Raises:
        ValueError: no adapter, or several, are in it.
        CheckpointError: its numbers are not finite, or quantized.
    """
    state = _state(path)
    firsts = [name for name in state if name.endswith("projector.0.weight")]
    prefixes = [name.removesuffix("projector.0.weight") for name in firsts]
    if not prefixes:
        raise ValueError(f"no projector.0.weight among {', '.join(sorted(state)[:3]) or 'nothing'}")
    if len(prefixes) > 1:
        raise ValueError(f"several adapters: {', '.join(sorted(prefixes))}")
    found = {name.removeprefix(prefixes[0]): each for name, each in state.items() if name.startswith(prefixes[0])}
    if prefixes[0]:  # the adapter itself has nothing else
        found = {name: each for name, each in found.items() if _OWN.match(name)}
    for name, each in found.items():
        check_numbers(name, each, each if each.is_floating_point() else each.float(), path)
    return {name: each.float() for name, each in found.items()}


def _state(path: Path) -> dict[str, Tensor]:
    file = _file(path)
    content = read_plain(file)
    while not _is_state(content):
        wrapper = next((name for name in _WRAPPERS if isinstance(content, dict) and name in content), None)
        if wrapper is None:
            raise ValueError("no tensors by name")
        content = content[wrapper]
    return dict(content)


def _is_state(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(each, Tensor) for each in content.values())


def _file(path: Path) -> Path:
    """The file itself; of a folder, the model states of DeepSpeed's newest step, or the one file of weights."""
    if path.is_file():
        return path
    latest = path / "latest"
    if not path.is_dir():
        raise ValueError("no such file or folder")
    step = path / Path(latest.read_text("utf-8").strip()).name if latest.is_file() else path
    for name in (_MODEL_STATES, "pytorch_model.bin", "model.safetensors"):
        if (step / name).is_file():
            return step / name
    raise ValueError(f"no {_MODEL_STATES} and no pytorch_model.bin in this folder")
