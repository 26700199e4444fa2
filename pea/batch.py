"""A training batch: parallel records first, culture samples after them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B rows of one latent shape; the first P are parallel records, the rest culture samples."""

    bucket: str
    """Name of the bucket, for example `64x64`."""
    names: list[str]
    """`tar/key#draw` of each row."""
    latents: Tensor
    """Scaled latents, float32 `[B, c, h, w]`."""
    noise: Tensor
    """float32 `[B, c, h, w]`."""
    timesteps: Tensor
    """int64 `[B]`."""
    time_ids: Tensor
    """int64 `[B, 6]`."""
    native_captions: list[str]
    """What the student reads, B of them; empty where the caption is dropped."""
    english_captions: list[str]
    """What the teacher reads, P of them; empty where the caption is dropped."""
    noise_pred: Tensor
    """The teacher's cached answer, `[P, c, h, w]`."""
    features: dict[str, dict[str, Tensor]]
    """Block -> the stored arrays of its sketch, each `[P, ...]`."""
    record_ids: npt.NDArray[np.uint64]
    """uint64 `[P]`."""

    @property
    def num_parallel(self) -> int:
        """P."""
        return len(self.english_captions)

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        moved: dict[str, Any] = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("latents", "noise", "timesteps", "time_ids", "noise_pred")
        }
        moved["features"] = {
            block: {suffix: tensor.to(device, non_blocking=True) for suffix, tensor in arrays.items()}
            for block, arrays in self.features.items()
        }
        return replace(self, **moved)
