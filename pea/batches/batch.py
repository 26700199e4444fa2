"""A training batch: parallel records first, culture samples after them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.attention.queries import AttentionTargets


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
    """The teacher's cached answer, `[P, c, h, w]`; no rows where a sketch of it is kept."""
    features: dict[str, dict[str, Tensor]]
    """Block -> the stored arrays of its sketch, each `[P, ...]`."""
    record_ids: npt.NDArray[np.uint64]
    """uint64 `[P]`."""
    native_pooled_captions: list[str] | None = None
    """What the student's pooled embedding reads, B of them, where a dropped caption stays in it; None: the same."""
    english_pooled_captions: list[str] | None = None
    """The same of the teacher, P of them."""

    noise_pred_sketch: dict[str, Tensor] = field(default_factory=dict)
    """The stored arrays of the noise prediction's sketch, each `[P, ...]`; empty where it is kept whole."""
    attention: AttentionTargets | None = None
    """What attention distillation asks of the P records, where it stands beside the other losses."""

    @property
    def num_parallel(self) -> int:
        """P."""
        return len(self.english_captions)

    def __len__(self) -> int:
        return len(self.names)

    def groups(self, count: int) -> list[Batch]:
        """The same rows in at most `count` batches, parallel and culture rows dealt out evenly, in their order."""
        num_rows, first = len(self), self.num_parallel
        count = min(count, num_rows)
        parallel = np.array_split(np.arange(first), count)
        culture = np.array_split(np.arange(first, num_rows), count)[::-1]
        return [self._of(a, b) for a, b in zip(parallel, culture, strict=True) if len(a) + len(b)]

    def culture_alone(self) -> Batch:
        """The same batch without its parallel rows."""
        return self._of(np.arange(0), np.arange(self.num_parallel, len(self)))

    def _of(self, parallel: npt.NDArray[np.int64], culture: npt.NDArray[np.int64]) -> Batch:
        rows = np.concatenate([parallel, culture])
        picked, first = torch.from_numpy(rows), torch.from_numpy(parallel)

        def texts(captions: list[str], numbers: npt.NDArray[np.int64]) -> list[str]:
            return [captions[number] for number in numbers]

        def stored(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor[first] for name, tensor in arrays.items()}

        pooled, english = self.native_pooled_captions, self.english_pooled_captions
        return replace(
            self,
            names=texts(self.names, rows),
            latents=self.latents[picked],
            noise=self.noise[picked],
            timesteps=self.timesteps[picked],
            time_ids=self.time_ids[picked],
            native_captions=texts(self.native_captions, rows),
            english_captions=texts(self.english_captions, parallel),
            noise_pred=self.noise_pred[first] if len(self.noise_pred) else self.noise_pred,
            features={block: stored(arrays) for block, arrays in self.features.items()},
            record_ids=self.record_ids[parallel],
            native_pooled_captions=None if pooled is None else texts(pooled, rows),
            english_pooled_captions=None if english is None else texts(english, parallel),
            noise_pred_sketch=stored(self.noise_pred_sketch),
            attention=None if self.attention is None else self.attention.of(first),
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        moved: dict[str, Any] = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("latents", "noise", "timesteps", "time_ids", "noise_pred")
        }
        moved["features"] = {block: _move(arrays, device) for block, arrays in self.features.items()}
        moved["noise_pred_sketch"] = _move(self.noise_pred_sketch, device)
        moved["attention"] = None if self.attention is None else self.attention.to(device)
        return replace(self, **moved)


def _move(tensors: dict[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
