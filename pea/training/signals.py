"""The teacher's signal, behind one interface: read from the cache, or recomputed at every step.

The trainer cannot tell which: both compare the student's pass with the teacher's and give each row's error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import TypeAdapter
from torch import Tensor

from pea.batches.batch import Batch
from pea.batches.text_states import Encode
from pea.cache import Bucket, Cache
from pea.cache.schema import FEATURES, NOISE_PRED
from pea.config import CacheConfig, SketchConfig
from pea.models.conditioning import Conditioning, on_device
from pea.models.unet import Teacher, UNetOutput
from pea.sketch.sketch import Sketch, from_numpy, make_sketch
from pea.training.losses import row_mse


class RowErrors(NamedTuple):
    """Mean squared errors of the student on the P parallel rows, float32 `[P]` each."""

    noise_pred: Tensor
    blocks: dict[str, Tensor]


class SignalSource(Protocol):
    """Compares the student with the teacher."""

    def errors(self, student: UNetOutput, batch: Batch, noisy_latents: Tensor) -> RowErrors:
        """Errors of the student's pass over a batch, on the batch's parallel rows; differentiable in the student."""
        ...


class CachedTeacher:
    """The teacher's answers from the cache; feature errors are estimated through each block's sketch."""

    def __init__(self, config: CacheConfig, blocks: Sequence[str]) -> None:
        self.config = config
        self.blocks = tuple(blocks)
        self._sketches: dict[tuple[str, tuple[int, ...]], Sketch] = {}

    def errors(self, student: UNetOutput, batch: Batch, noisy_latents: Tensor) -> RowErrors:  # noqa: ARG002
        """`E[SᵀS] = I` makes the sketched distance and its gradient unbiased."""
        rows = batch.num_parallel
        if rows == 0:
            return _no_errors(student, self.blocks)
        blocks = {}
        for block in self.blocks:
            feature = student.features[block][:rows]
            sketch = self.sketch(block, tuple(feature.shape[1:]))
            distance = sketch.squared_distance(feature, batch.features[block], batch.record_ids)
            blocks[block] = distance / sketch.numel
        return RowErrors(self._noise_pred_error(student.noise_pred[:rows], batch), blocks)

    def _noise_pred_error(self, noise_pred: Tensor, batch: Batch) -> Tensor:
        config = self.config.noise_pred_sketch
        if config is None:
            return row_mse(noise_pred, batch.noise_pred)
        channels, height, width = noise_pred.shape[1:]
        key = (NOISE_PRED, (channels, height, width))
        if key not in self._sketches:
            self._sketches[key] = make_sketch(config, self.config.seed, NOISE_PRED, (channels, height, width))
        sketch = self._sketches[key]
        return sketch.squared_distance(noise_pred, batch.noise_pred_sketch, batch.record_ids) / sketch.numel

    def sketch(self, block: str, shape_chw: tuple[int, ...]) -> Sketch:
        """The sketch of a block at one feature shape; made once."""
        key = (block, shape_chw)
        if key not in self._sketches:
            channels, height, width = shape_chw
            config = self.config.sketch_for(block)
            self._sketches[key] = make_sketch(config, self.config.seed, block, (channels, height, width))
        return self._sketches[key]


def feature_powers(cache: Cache, blocks: Sequence[str], num_samples: int = 64) -> dict[str, float]:
    """Block -> mean square of the teacher's features, from the records of the cache's first samples.

    A sketch keeps squared norms on average, so what is stored is enough.
    """
    sums, counts = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0)
    seed, left = int(cache.identity.fields["cache.seed"]), num_samples
    for shard in cache.shards:
        for bucket in shard.buckets.values():
            rows = min(left, bucket.num_samples) * bucket.draws_per_sample
            for block in blocks if rows else ():
                sketch = stored_sketch(bucket, block, seed)
                stored = {
                    suffix: from_numpy(bucket.read([name], 0, rows)[name])
                    for suffix in sketch.arrays
                    for name in [f"{FEATURES}/{block}/{suffix}"]
                }
                sums[block] += float(sketch.decode(stored).square().sum())
                counts[block] += rows * sketch.numel
            left -= rows // max(1, bucket.draws_per_sample)
    return {block: sums[block] / max(1, counts[block]) for block in blocks}


def sketch_path(block: str) -> str:
    """Where the arrays of a block's sketch are, or those of ``noise_pred``."""
    return NOISE_PRED if block == NOISE_PRED else f"{FEATURES}/{block}"


def stored_sketch(bucket: Bucket, block: str, seed: int) -> Sketch:
    """The sketch of a block, or of ``noise_pred``, as a bucket's attributes say; ``seed`` is the cache's."""
    spec = bucket.arrays[f"{sketch_path(block)}/values"]
    channels, height, width = spec.attributes["feature_shape"]
    config: Any = TypeAdapter(SketchConfig).validate_python(spec.attributes["sketch"])
    return make_sketch(config, seed, block, (channels, height, width))


class LiveTeacher:
    """The original recipe: the teacher's UNet pass with the English caption, at every step."""

    def __init__(self, teacher: Teacher, encode: Encode, blocks: Sequence[str]) -> None:
        self.teacher = teacher
        self.encode = encode
        self.blocks = tuple(blocks)

    def errors(self, student: UNetOutput, batch: Batch, noisy_latents: Tensor) -> RowErrors:
        """Source: arXiv 2311.17086, equations 4 and 5."""
        rows = batch.num_parallel
        if rows == 0:
            return _no_errors(student, self.blocks)
        with torch.no_grad():
            conditioning = english_conditioning(self.encode, batch, self.teacher.unet.device)
            answer = self.teacher.forward(
                noisy_latents[:rows], batch.timesteps[:rows], conditioning, batch.time_ids[:rows]
            )
        errors = {block: row_mse(student.features[block][:rows], answer.features[block]) for block in self.blocks}
        return RowErrors(row_mse(student.noise_pred[:rows], answer.noise_pred), errors)


def english_conditioning(encode: Encode, batch: Batch, device: torch.device) -> Conditioning:
    """What the teacher is told of the P parallel rows, on `device`."""
    hidden, pooled = on_device(encode(batch.english_captions), device)
    if batch.english_pooled_captions is not None and pooled is not None:
        pooled = on_device(encode(batch.english_pooled_captions), device).pooled_prompt_embeds
    return Conditioning(hidden, pooled)


def _no_errors(student: UNetOutput, blocks: Sequence[str]) -> RowErrors:
    empty = student.noise_pred.new_zeros(0, dtype=torch.float32)
    return RowErrors(empty, dict.fromkeys(blocks, empty))
