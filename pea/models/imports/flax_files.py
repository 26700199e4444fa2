"""The tensors in a flax checkpoint (`flax_model.msgpack`), with the names that PyTorch's layers have.

Source: flax, flax/serialization.py: msgpack with arrays as extension type 1 (shape, dtype's name, bytes in C order)
and numpy scalars as type 3; arrays over a gigabyte in chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pea.errors import CheckpointError

_ARRAY, _SCALAR = 1, 3
_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int32": torch.int32,
    "int64": torch.int64,
}
_CHUNKED = "__msgpack_chunked_array__"


def read_flax(path: Path) -> dict[str, Tensor]:
    """Dotted names -> tensors; `kernel` (transposed), `scale` and `embedding` become `weight`.

    Raises:
        CheckpointError: it is no such file, or the package that reads it is missing.
    """
    if find_spec("msgpack") is None:
        raise CheckpointError("a package is missing", where=path, got="msgpack", remedy="pip install msgpack")
    import msgpack

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_array, raw=False, strict_map_key=False)
        if not isinstance(tree, Mapping):
            raise ValueError(f"{type(tree).__name__} instead of a dictionary")
        tree = tree.get("params", tree)
        return {".".join(names): tensor for names, tensor in _named(tree, ())}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, msgpack.UnpackException) as error:
        raise CheckpointError("not a flax checkpoint", where=path, got=str(error) or type(error).__name__) from error


def _array(code: int, data: bytes) -> Tensor:
    import msgpack

    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"values of extension type {code}")
    shape, dtype, buffer = msgpack.unpackb(data, raw=False)
    if dtype not in _DTYPES:
        raise ValueError(f"an array of {dtype}")
    if prod(shape) * _DTYPES[dtype].itemsize != len(buffer):
        raise ValueError(f"{len(buffer)} bytes for {dtype} {list(shape)}")
    if not buffer:
        return torch.empty(list(shape), dtype=_DTYPES[dtype])
    return torch.frombuffer(bytearray(buffer), dtype=_DTYPES[dtype]).reshape(list(shape))


def _named(node: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and _CHUNKED in value:
            value = _joined(value)
        if isinstance(value, Mapping):
            yield from _named(value, (*above, str(key)))
        elif isinstance(value, Tensor):
            yield _as_torch(above, str(key), value)
        else:
            raise TypeError(f"{type(value).__name__} under {'.'.join((*above, str(key)))}")


def _joined(chunks: Mapping[str, Any]) -> Tensor:
    def in_order(numbered: Mapping[str, Any]) -> list[Any]:
        return [numbered[str(index)] for index in range(len(numbered))]

    flat = torch.cat([chunk.flatten() for chunk in in_order(chunks["chunks"])])
    return flat.reshape([int(size) for size in in_order(chunks["shape"])])


def _as_torch(above: tuple[str, ...], key: str, value: Tensor) -> tuple[tuple[str, ...], Tensor]:
    if key == "kernel":
        # [in, out] -> [out, in]; of a convolution [height, width, in, out] -> [out, in, height, width]
        value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.transpose(-2, -1)
        return (*above, "weight"), value.contiguous()
    return (*above, "weight" if key in ("scale", "embedding") else key), value
