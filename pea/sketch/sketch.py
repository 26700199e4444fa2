"""Sketches: small, unbiased records of feature maps.

A sketch is a random linear map ``S`` with ``E[S^T S] = I``, so that ``|S s - S t|^2`` estimates ``|s -
t|^2`` without bias, and so does its gradient; the variance shrinks with ``|s - t|`` itself. The teacher's
``S t`` is stored; the student's features go through the same ``S`` at train time. ``S`` follows from (seed,
block, record id) by integer hashing and is the same on every device.

Shapes: B records, C channels, H x W positions, M outputs of the map, kept as R rows of L values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.config import CountSketch, ExactSketch, FoldSketch, PositionsSketch, QuantizedSketch
from pea.sketch.codecs import Codec, make_codec
from pea.sketch.hash import record_keys
from pea.sketch.maps import CountMap, FoldMap, LinearMap, PositionsMap

AnySketchConfig = ExactSketch | QuantizedSketch | PositionsSketch | CountSketch | FoldSketch
RecordIds = npt.NDArray[np.uint64] | Tensor


@dataclass(frozen=True)
class ArrayLayout:
    """How one array of a sketch is stored, per record."""

    dtype: str
    """The name in numpy; bfloat16 is kept as the bits in uint16, fp8 and int4 as uint8."""
    shape: tuple[int, ...]
    """Without the record dimension."""
    dimension_names: tuple[str, ...]
    """One name per dimension of ``shape``."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What a reader needs to make sense of the values."""


class Sketch:
    """What is kept of one block's feature maps: a linear map followed by a way to store its values."""

    def __init__(self, linear: LinearMap, codec: Codec, block_key: int, *, lossless: bool) -> None:
        self._linear, self._codec, self._lossless = linear, codec, lossless
        self._block_key = block_key
        self.numel = linear.numel
        """Values of the feature map: C * H * W."""
        self.num_outputs = linear.rows * linear.length
        """M, the length of ``project`` and ``decode``."""

    @property
    def arrays(self) -> dict[str, ArrayLayout]:
        """What ``encode`` returns, per record."""
        shape = (*self._linear.stored_shape[:-1], self._codec.packed_length(self._linear.stored_shape[-1]))
        meaning = {"feature_shape": list(self._linear.feature_shape), "values": self._codec.name}
        layouts = {"values": ArrayLayout(self._codec.dtype, shape, self._linear.dimension_names, meaning)}
        if self._codec.has_scale:
            layouts["scale"] = ArrayLayout("float32", (self._linear.rows,), ("row",))
            layouts["offset"] = ArrayLayout("float32", (), ())
        if not self._lossless:
            layouts["squared_norm"] = ArrayLayout("float32", (), ())
        return layouts

    def encode(self, features: Tensor, record_ids: RecordIds) -> dict[str, Tensor]:
        """Feature maps [B, C, H, W] of the teacher -> the arrays to store, each with leading dimension B.

        ``offset`` is what the rounding of quantized values adds to the squared distance, with the sign
        turned; ``squared_norm`` is that of the feature map itself.
        """
        keys = self._keys(record_ids, features.device)
        features = features.detach().float()
        values = self._linear.apply(features, keys)
        stored = self._codec.encode(values, keys)
        if self._codec.has_scale:
            error = values.square() - self._codec.decode(stored, self._linear.length).square()
            stored["offset"] = error.flatten(1).sum(1) * self._linear.scale**2
        if not self._lossless:
            stored["squared_norm"] = features.square().flatten(1).sum(1)
        return {name: stored[name].reshape(-1, *layout.shape) for name, layout in self.arrays.items()}

    def decode(self, stored: dict[str, Tensor], record_ids: RecordIds | None = None) -> Tensor:  # noqa: ARG002
        """The teacher's side of the distance: float32 [B, M]."""
        values = stored["values"].reshape(len(stored["values"]), self._linear.rows, -1)
        decoded = self._codec.decode({**stored, "values": values}, self._linear.length)
        return decoded.flatten(1) * self._linear.scale

    def project(self, features: Tensor, record_ids: RecordIds) -> Tensor:
        """The student's side: [B, C, H, W] -> float32 [B, M]; gradients flow."""
        values = self._linear.apply(features.float(), self._keys(record_ids, features.device))
        return values.flatten(1) * self._linear.scale

    def squared_distance(self, features: Tensor, stored: dict[str, Tensor], record_ids: RecordIds) -> Tensor:
        """Unbiased estimate of ``|features - teacher's features|^2``: over ``numel``, the mse."""
        difference = self.project(features, record_ids) - self.decode(stored, record_ids)
        distance = difference.square().sum(1)
        return distance + stored["offset"] if "offset" in stored else distance

    def back_project(self, stored: dict[str, Tensor], record_ids: RecordIds) -> Tensor:
        """The unbiased guess ``S^T S t`` of the feature maps, to look at: float32 [B, C, H, W]."""
        values = self.decode(stored)
        blank = torch.zeros(len(values), *self._linear.feature_shape, device=values.device, requires_grad=True)
        with torch.enable_grad():
            (guess,) = torch.autograd.grad((self.project(blank, record_ids) * values).sum(), blank)
        return guess

    def finite(self, stored: dict[str, Tensor]) -> Tensor:
        """Whether everything kept of each record is finite: bool [B]."""
        healthy = torch.isfinite(self.decode(stored)).all(1)
        for name, values in stored.items():
            if name != "values":
                healthy &= torch.isfinite(values).reshape(len(healthy), -1).all(1)
        return healthy

    def _keys(self, record_ids: RecordIds, device: torch.device) -> Tensor:
        return record_keys(record_ids, self._block_key, device)


def make_sketch(config: AnySketchConfig, seed: int, block: str, shape_chw: tuple[int, int, int]) -> Sketch:
    """The sketch of one block whose feature maps are [C, H, W]. ``seed`` is the cache's."""
    channels, height, width = shape_chw
    shape = (channels, height, width)
    digest = hashlib.sha256(f"sketch\0{seed}\0{block}".encode()).digest()
    key = int.from_bytes(digest[:8], "little", signed=True)
    if isinstance(config, ExactSketch):
        return Sketch(LinearMap(shape), make_codec(config.dtype), key, lossless=True)
    linear: LinearMap
    if isinstance(config, PositionsSketch):
        linear = PositionsMap(shape, config.fraction)
    elif isinstance(config, CountSketch):
        linear = CountMap(shape, config.ratio)
    elif isinstance(config, FoldSketch):
        linear = FoldMap(shape, config.ratio, key)
    else:
        linear = LinearMap(shape)
        if config.values == "int4" and width % 2:
            linear.stored_shape, linear.dimension_names = (channels, height * width), ("channel", "position")
    return Sketch(linear, make_codec(config.values), key, lossless=False)


def to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor as the array that is stored: bfloat16 as uint16, fp8 as uint8, all others as they are."""
    tensor = tensor.detach().contiguous().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    elif tensor.dtype == torch.float8_e4m3fn:
        tensor = tensor.view(torch.uint8)
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def from_numpy(array: npt.NDArray[Any], dtype: str | None = None) -> Tensor:
    """A stored array as a tensor; ``dtype`` names what the bits mean where numpy has no such type."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
