"""Chosen tensors of a folder of safetensors, whole or in pieces; the others are never read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pea.errors import CheckpointError
from pea.models.loaded_tensors import check_numbers
from pea.models.tensor_files import stored_tensors


class WeightFiles:
    """The tensors of one model folder, by name, from the files that loading the whole model would read."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device | str) -> None:
        """Raises ``CheckpointError``: a file is missing, or is no safetensors file."""
        self.folder, self.dtype, self.device = folder, dtype, str(device)
        self.files = {name: tensor.file for name, tensor in stored_tensors(folder).items()}

    def take(self, module: str, names: Sequence[str]) -> dict[str, Tensor]:
        """Parameters of one module by their names inside it.

        Raises:
            CheckpointError: one is not there.
        """
        taken = {}
        for name in names:
            path = self.files.get(f"{module}.{name}")
            if path is None:
                raise CheckpointError("the UNet lacks a tensor", where=self.folder, expected=f"{module}.{name}")
            try:
                with safe_open(path, "pt") as file:
                    stored = file.get_tensor(f"{module}.{name}")
                    taken[name] = stored.to(self.device, self.dtype)
                    check_numbers(f"{module}.{name}", stored, taken[name], path)
            except (OSError, SafetensorError) as error:
                raise CheckpointError("cannot read the UNet's weights", where=path, got=error) from error
        return taken
