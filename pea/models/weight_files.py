"""Chosen tensors of a folder of safetensors, whole or in pieces; the others are never read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pea.errors import CheckpointError


class WeightFiles:
    """The tensors of one model folder, by name."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device | str) -> None:
        self.folder, self.dtype, self.device = folder, dtype, str(device)
        indices = sorted(folder.glob("*.safetensors.index*.json"))
        self.files: dict[str, Path] = {}
        try:
            if indices:
                weights = json.loads(indices[0].read_text("utf-8"))["weight_map"]
                self.files = {name: folder / file for name, file in weights.items()}
                return
            plain = sorted(folder.glob("*model.safetensors")) or sorted(folder.glob("*.fp16.safetensors"))
            if plain:
                with safe_open(plain[0], "pt") as file:
                    self.files = dict.fromkeys(file.keys(), plain[0])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError("cannot read the UNet's weights", where=folder, got=error) from error

    def take(self, module: str, names: Sequence[str]) -> dict[str, Tensor]:
        """Parameters of one module by their names inside it."""
        taken = {}
        for name in names:
            path = self.files.get(f"{module}.{name}")
            if path is None:
                raise CheckpointError("the UNet lacks a tensor", where=self.folder, expected=f"{module}.{name}")
            try:
                with safe_open(path, "pt") as file:
                    taken[name] = file.get_tensor(f"{module}.{name}").to(self.device, self.dtype)
            except (OSError, SafetensorError) as error:
                raise CheckpointError("cannot read the UNet's weights", where=path, got=error) from error
        return taken
