"""Sketches: small, unbiased records of feature maps.

A sketch is a random linear map ``S`` with ``E[S^T S] = I``, so that ``|S s - S t|^2`` estimates ``|s -
t|^2`` without bias, and so does its gradient; the variance shrinks with ``|s - t|`` itself. The teacher's
``S t`` is stored; the student's features go through the same ``S`` at train time. ``S`` follows from (seed,
block, record id) by integer hashing and is the same on every device.

Shapes: B records, C channels, H x W positions, M outputs of the map, kept as R rows of L values.

Source: Charikar, Chen, Farach-Colton 2002 (count sketch); Steele, Lea, Flood 2014 (SplitMix64).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.config import CountSketch, ExactSketch, PositionsSketch, QuantizedSketch
from pea.sketch_codecs import Codec, make_codec
from pea.sketch_hash import record_keys, signs, words
from pea.sketch_sums import TurnAndAdd

AnySketchConfig = ExactSketch | QuantizedSketch | PositionsSketch | CountSketch
RecordIds = npt.NDArray[np.uint64] | Tensor
_ROW = 64  # values of a count sketch that share a scale when quantized, and the unit of the signs


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


class LinearMap:
    """The random map: [B, C, H, W] -> [B, R, L]; here the identity, rows are channels."""

    def __init__(self, shape_chw: tuple[int, int, int]) -> None:
        self.channels, self.height, self.width = shape_chw
        self.feature_shape = shape_chw
        self.numel = math.prod(shape_chw)
        self.rows, self.length = self.channels, self.height * self.width
        self.stored_shape: tuple[int, ...] = shape_chw
        self.dimension_names: tuple[str, ...] = ("channel", "height", "width")
        self.scale = 1.0
        """What the stored values must be multiplied by to have ``E[S^T S] = I``."""

    def apply(self, features: Tensor, keys: Tensor) -> Tensor:  # noqa: ARG002 (used by the others)
        """Float32 [B, C, H, W] and int64 [B] -> float32 [B, R, L], without ``scale``; differentiable."""
        return features.flatten(2)


class PositionsMap(LinearMap):
    """All channels at P random positions."""

    def __init__(self, shape_chw: tuple[int, int, int], fraction: float) -> None:
        super().__init__(shape_chw)
        self.num_positions = self.height * self.width
        self.length = max(1, round(fraction * self.num_positions))
        self.stored_shape = (self.channels, self.length)
        self.dimension_names = ("channel", "position")
        self.scale = math.sqrt(self.num_positions / self.length)

    def positions(self, keys: Tensor) -> Tensor:
        """The chosen positions ``y * W + x``, ascending: int64 [B, P]."""
        bits = self.num_positions.bit_length()
        index = torch.arange(self.num_positions, device=keys.device)
        lots = (words(keys, "positions", self.num_positions) >> bits << bits) | index  # unique: any sort agrees
        chosen = lots.sort(dim=1).values[:, : self.length] & ((1 << bits) - 1)
        return chosen.sort(dim=1).values

    def apply(self, features: Tensor, keys: Tensor) -> Tensor:
        """See ``LinearMap.apply``."""
        index = self.positions(keys)[:, None, :].expand(-1, self.channels, -1)
        return features.flatten(2).gather(2, index)


class CountMap(LinearMap):
    """Signed sums: the values, in lines of M, are given random signs, turned by a random amount, and added up.

    Two values of one line never meet and two of different lines meet with probability 1/M: a count sketch,
    with slightly less variance than the classical one, that needs one random bit per value.
    """

    def __init__(self, shape_chw: tuple[int, int, int], ratio: float) -> None:
        super().__init__(shape_chw)
        self.rows, self.length = max(1, math.ceil(self.numel / ratio / _ROW)), _ROW
        self.num_sums = self.rows * _ROW
        self.num_lines = math.ceil(self.numel / self.num_sums)
        self.stored_shape = (self.num_sums,)
        self.dimension_names = ("sum",)

    def apply(self, features: Tensor, keys: Tensor) -> Tensor:
        """See ``LinearMap.apply``."""
        flat = torch.nn.functional.pad(features.flatten(1), (0, self.num_lines * self.num_sums - self.numel))
        lines = flat.view(-1, self.num_lines, self.num_sums)
        turns = (words(keys, "turns", self.num_lines) & 0x7FFFFFFFFFFFFFFF) % self.num_sums
        sums: Tensor = TurnAndAdd.apply(lines, signs(keys, flat.shape[1]).view_as(lines), turns)  # type: ignore[no-untyped-call]
        return sums.view(-1, self.rows, _ROW)


class Sketch:
    """What is kept of one block's feature maps: a linear map followed by a way to store its values."""

    def __init__(self, linear: LinearMap, codec: Codec, seed: int, block: str, *, lossless: bool) -> None:
        self._linear, self._codec, self._lossless = linear, codec, lossless
        digest = hashlib.sha256(f"sketch\0{seed}\0{block}".encode()).digest()
        self._block_key = int.from_bytes(digest[:8], "little", signed=True)
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
    if isinstance(config, ExactSketch):
        return Sketch(LinearMap(shape), make_codec(config.dtype), seed, block, lossless=True)
    linear: LinearMap
    if isinstance(config, PositionsSketch):
        linear = PositionsMap(shape, config.fraction)
    elif isinstance(config, CountSketch):
        linear = CountMap(shape, config.ratio)
    else:
        linear = LinearMap(shape)
        if config.values == "int4" and width % 2:
            linear.stored_shape, linear.dimension_names = (channels, height * width), ("channel", "position")
    return Sketch(linear, make_codec(config.values), seed, block, lossless=False)


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
