"""How the values of a sketch are stored: as floats, or in few bits with a scale per row and unbiased rounding.

Shapes: B records, R rows (channels) of L values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pea.sketch.hash import uniforms

_SMALLEST = 2.0**-126
_FP8_MAX = 448.0  # of e4m3
_FP8_MIN_EXPONENT = -6
_FP8_MANTISSA_BITS = 3


class Codec:
    """Floats, rounded to nearest."""

    has_scale = False

    def __init__(self, dtype: str) -> None:
        self.name = dtype
        """As configured."""
        self.torch_dtype: torch.dtype = getattr(torch, dtype)
        self.dtype = "uint16" if dtype == "bfloat16" else dtype
        """numpy's name of the stored type."""

    def packed_length(self, length: int) -> int:
        """Stored elements of ``length`` values."""
        return length

    def encode(self, values: Tensor, keys: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Float32 [B, R, L] -> ``values`` [B, R, packed length], and ``scale`` [B, R] where there is one."""
        rounded = values.to(self.torch_dtype)
        return {"values": rounded.view(torch.uint16) if self.dtype == "uint16" else rounded}

    def decode(self, stored: dict[str, Tensor], length: int) -> Tensor:  # noqa: ARG002
        """What ``encode`` made -> float32 [B, R, L]."""
        values = stored["values"]
        return (values.view(torch.bfloat16) if values.dtype == torch.uint16 else values).float()


class ScaledCodec(Codec):
    """int8 with a float32 scale per row; rounded up or down at random, so that the mean is exact."""

    has_scale = True
    name = "int8"
    dtype = "int8"
    limit = 127.0

    def __init__(self) -> None:
        """Has no options."""

    def encode(self, values: Tensor, keys: Tensor) -> dict[str, Tensor]:
        """See ``Codec.encode``."""
        scale = (values.abs().amax(2) / self.limit).clamp_min(_SMALLEST)
        ratios = (values / scale[:, :, None]).nan_to_num(0.0).clamp(-self.limit, self.limit)
        chances = uniforms(keys, ratios[0].numel()).view_as(ratios)
        return {"values": self.pack(self.round(ratios, chances)), "scale": scale}

    def decode(self, stored: dict[str, Tensor], length: int) -> Tensor:
        """See ``Codec.decode``."""
        return self.unpack(stored["values"], length) * stored["scale"][:, :, None]

    def round(self, ratios: Tensor, chances: Tensor) -> Tensor:
        """Values in [-limit, limit] -> values that can be stored, right in the mean."""
        return torch.floor(ratios + chances)

    def pack(self, rounded: Tensor) -> Tensor:
        """Storable values as the stored type."""
        return rounded.to(torch.int8)

    def unpack(self, packed: Tensor, length: int) -> Tensor:  # noqa: ARG002
        """The stored type -> float32 [B, R, L]."""
        return packed.float()


class Fp8Codec(ScaledCodec):
    """8-bit floats (e4m3): finer near zero, for rows with few large values."""

    name = "fp8_e4m3"
    dtype = "uint8"
    limit = _FP8_MAX

    def round(self, ratios: Tensor, chances: Tensor) -> Tensor:
        """See ``ScaledCodec.round``; a step is the distance between neighbours at that magnitude."""
        exponent = torch.frexp(ratios).exponent - 1
        step_exponent = exponent.clamp_min(_FP8_MIN_EXPONENT) - _FP8_MANTISSA_BITS
        step = ((step_exponent.int() + 127) << 23).view(torch.float32)  # 2**step_exponent, exactly
        return torch.floor(ratios / step + chances) * step

    def pack(self, rounded: Tensor) -> Tensor:
        """See ``ScaledCodec.pack``."""
        return rounded.to(torch.float8_e4m3fn).view(torch.uint8)

    def unpack(self, packed: Tensor, length: int) -> Tensor:  # noqa: ARG002
        """See ``ScaledCodec.unpack``."""
        return packed.view(torch.float8_e4m3fn).float()


class Int4Codec(ScaledCodec):
    """-7..7, two to a byte, the first in the low half."""

    name = "int4"
    dtype = "uint8"
    limit = 7.0

    def packed_length(self, length: int) -> int:
        """See ``Codec.packed_length``."""
        return (length + 1) // 2

    def pack(self, rounded: Tensor) -> Tensor:
        """See ``ScaledCodec.pack``."""
        nibbles = torch.nn.functional.pad(rounded.to(torch.int16) + 8, (0, rounded.shape[2] % 2), value=8)
        return (nibbles[:, :, 0::2] | (nibbles[:, :, 1::2] << 4)).to(torch.uint8)

    def unpack(self, packed: Tensor, length: int) -> Tensor:
        """See ``ScaledCodec.unpack``."""
        nibbles = torch.stack([packed & 15, packed >> 4], dim=3).flatten(2)[:, :, :length]
        return nibbles.float() - 8.0


def make_codec(values: str) -> Codec:
    """The codec of a configured name: a float type, ``int8``, ``fp8_e4m3`` or ``int4``."""
    scaled = {"int8": ScaledCodec, "fp8_e4m3": Fp8Codec, "int4": Int4Codec}
    return scaled[values]() if values in scaled else Codec(values)
