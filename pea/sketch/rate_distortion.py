"""Rate against distortion of sketches, where distortion is what it does to the adapter's gradient.

A block's feature loss reaches the adapter through one linear map, the backward pass from that block, which is the same
for the exact loss and for every sketch of it. So one forward pass serves all settings, and each costs one backward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pea.sketch.sketch import AnySketchConfig, RecordIds, Sketch, make_sketch

Features = Mapping[str, Tensor]
Shape = tuple[int, int, int]
"""Of a feature map: channels, height, width."""


@dataclass(frozen=True)
class Point:
    """One sketch of one block, measured."""

    block: str
    sketch: AnySketchConfig
    bytes_per_record: int
    """As stored, before compression; with several buckets the mean over the records, rounded."""
    fp16_bytes: int
    """Of the whole feature map in float16; the mean as well."""
    cosine: float
    """Between the adapter's gradient through the sketch and the exact one."""
    relative_error: float
    """Norm of their difference over the norm of the exact one."""
    gradient_norm: float
    """Norm of the exact gradient of this block's mean squared error, summed over the records."""

    @property
    def ratio(self) -> float:
        """Times smaller than float16."""
        return self.fp16_bytes / self.bytes_per_record


class GradientErrors:
    """Adds up the gradients of several batches, exact and through each sketch; batches may be of several buckets."""

    def __init__(self, settings: Sequence[AnySketchConfig], seed: int) -> None:
        """``seed``: the cache's, from which the sketches follow."""
        self.settings, self.seed = list(settings), seed
        self._exact: dict[str, Tensor] = {}
        self._sketched: dict[tuple[str, int], Tensor] = {}
        self._sketches: dict[tuple[str, int, Shape], Sketch] = {}
        self._num_records: dict[tuple[str, Shape], int] = {}

    def add(self, student: Features, teacher: Features, record_ids: RecordIds, parameters: Sequence[Tensor]) -> None:
        """One batch: block -> feature maps ``[B, C, H, W]``, those of the student with a graph to ``parameters``."""
        for block, feature in student.items():
            shape = _shape(feature)
            self._num_records[block, shape] = self._num_records.get((block, shape), 0) + len(feature)
            answer = teacher[block].detach().float()
            leaf = feature.detach().float().requires_grad_()
            exact = (leaf - answer).square().sum() / math.prod(shape)
            self._exact[block] = self._exact.get(block, 0.0) + _gradient(feature, leaf, exact, parameters)
            for number in range(len(self.settings)):
                sketch = self._sketch(block, number, shape)
                distance = sketch.squared_distance(leaf, sketch.encode(answer, record_ids), record_ids).sum()
                gradient = _gradient(feature, leaf, distance / math.prod(shape), parameters)
                self._sketched[block, number] = self._sketched.get((block, number), 0.0) + gradient

    def points(self) -> list[Point]:
        """What was measured, by block and setting."""
        found = []
        for (block, number), gradient in self._sketched.items():
            exact = self._exact[block]
            norm = float(exact.norm())
            counts = {shape: count for (name, shape), count in self._num_records.items() if name == block}
            stored = {shape: stored_bytes(self._sketches[block, number, shape]) for shape in counts}
            found.append(
                Point(
                    block=block,
                    sketch=self.settings[number],
                    bytes_per_record=_mean(stored, counts),
                    fp16_bytes=_mean({shape: 2 * math.prod(shape) for shape in counts}, counts),
                    cosine=float(torch.nn.functional.cosine_similarity(gradient, exact, dim=0)),
                    relative_error=float((gradient - exact).norm()) / max(norm, 1e-30),
                    gradient_norm=norm,
                )
            )
        return found

    def _sketch(self, block: str, number: int, shape: Shape) -> Sketch:
        if (block, number, shape) not in self._sketches:
            self._sketches[block, number, shape] = make_sketch(self.settings[number], self.seed, block, shape)
        return self._sketches[block, number, shape]


def _shape(feature: Tensor) -> Shape:
    _, channels, height, width = feature.shape
    return channels, height, width


def _mean(sizes: Mapping[Shape, int], counts: Mapping[Shape, int]) -> int:
    """Mean of the sizes of some shapes, each of so many records."""
    return round(sum(sizes[shape] * count for shape, count in counts.items()) / sum(counts.values()))


def _gradient(feature: Tensor, leaf: Tensor, distance: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Gradient of ``distance``, a function of ``leaf``, by way of ``feature``: float64, all parameters in a row."""
    (at_feature,) = torch.autograd.grad(distance, leaf)
    gradients = torch.autograd.grad(
        feature, parameters, at_feature.to(feature.dtype), retain_graph=True, materialize_grads=True
    )
    return torch.cat([gradient.flatten().double() for gradient in gradients])


def stored_bytes(sketch: Sketch) -> int:
    """Bytes of one record's arrays, before compression."""
    return sum(np.dtype(array.dtype).itemsize * math.prod(array.shape) for array in sketch.arrays.values())


def recommend(points: Sequence[Point], budget_bytes: float, weights: Mapping[str, float]) -> dict[str, Point] | None:
    """Block -> setting: the least error of the summed gradient within a budget per record, found greedily.

    Errors of different blocks are independent, so their squares add up; each is weighed by its block's factor in the
    loss (1 where absent). From the smallest settings on, the upgrade that removes the most error per byte is taken.
    None: even the smallest settings exceed the budget.
    """

    def error(point: Point) -> float:
        return (weights.get(point.block, 1.0) * point.relative_error * point.gradient_norm) ** 2

    by_block: dict[str, list[Point]] = {}
    for point in points:
        by_block.setdefault(point.block, []).append(point)
    chosen = {block: min(each, key=lambda p: (p.bytes_per_record, error(p))) for block, each in by_block.items()}
    spent = sum(point.bytes_per_record for point in chosen.values())
    if spent > budget_bytes:
        return None
    while True:
        upgrades = [
            (
                (error(chosen[point.block]) - error(point))
                / (point.bytes_per_record - chosen[point.block].bytes_per_record),
                point,
            )
            for point in points
            if point.bytes_per_record > chosen[point.block].bytes_per_record
            and error(point) < error(chosen[point.block])
            and spent - chosen[point.block].bytes_per_record + point.bytes_per_record <= budget_bytes
        ]
        if not upgrades:
            return chosen
        _, best = max(upgrades, key=lambda upgrade: upgrade[0])
        spent += best.bytes_per_record - chosen[best.block].bytes_per_record
        chosen[best.block] = best
