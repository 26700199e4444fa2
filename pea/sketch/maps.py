"""The random linear maps of sketches: feature maps in, fewer values out.

Shapes: B records, C channels, H x W positions, M outputs of the map, kept as R rows of L values.

Source: Charikar, Chen, Farach-Colton 2002 (count sketch); Steele, Lea, Flood 2014 (SplitMix64).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pea.sketch.hash import signs, words
from pea.sketch.sums import FoldAndAdd, TurnAndAdd

_ROW = 64  # values of a count sketch that share a scale when quantized, and the unit of the signs


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


class FoldMap(LinearMap):
    """Signed sums that cost one multiplication and one product of matrices: a count sketch without scattering.

    The values, position by position with all channels (as channels-last tensors lie in memory), take fixed random
    signs and are cut into lines of a length that shares no factor with C, H and W; the lines are added up, each with a
    random sign of the record's own. Two values meet when they are a multiple of the length apart: never two of one
    line, so that the records' signs make every product of two different values vanish on average.
    """

    def __init__(self, shape_chw: tuple[int, int, int], ratio: float, block_key: int) -> None:
        super().__init__(shape_chw)
        wanted = max(1, math.ceil(self.numel / ratio))
        if wanted < _ROW:  # one short row
            self.line = self._coprime(range(wanted, self.numel + 2))
            self.rows, self.length = 1, self.line
        else:
            self.rows, self.length = math.ceil(wanted / _ROW), _ROW
            self.line = self._coprime(range(min(self.rows * _ROW, self.numel), 0, -1))
        self.num_sums = self.rows * self.length
        self.num_lines = math.ceil(self.numel / self.line)
        self.stored_shape = (self.num_sums,)
        self.dimension_names = ("sum",)
        self._block_key = block_key
        self._signs: dict[torch.device, Tensor] = {}

    def apply(self, features: Tensor, keys: Tensor) -> Tensor:
        """See ``LinearMap.apply``."""
        values = features.permute(0, 2, 3, 1).flatten(1)
        record_signs = signs(keys, math.ceil(self.num_lines / _ROW) * _ROW)[:, : self.num_lines]
        sums: Tensor = FoldAndAdd.apply(values, self._fixed_signs(features.device), record_signs, self.line)  # type: ignore[no-untyped-call]
        return torch.nn.functional.pad(sums, (0, self.num_sums - self.line)).view(-1, self.rows, self.length)

    def _coprime(self, lengths: range) -> int:
        """The first length that shares no factor with the number of values."""
        return next(length for length in lengths if math.gcd(length, self.numel) == 1)

    def _fixed_signs(self, device: torch.device) -> Tensor:
        """The block's own signs: float32 [C * H * W]; kept."""
        if device not in self._signs:
            key = torch.tensor([self._block_key], device=device)
            self._signs[device] = signs(key, math.ceil(self.numel / _ROW) * _ROW)[0, : self.numel].clone()
        return self._signs[device]
