"""Flax checkpoints, written as flax's documented format says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from torch import Tensor


def write_flax(state: dict[str, Tensor], path: Path, chunked: tuple[str, ...] = ()) -> Path:
    """PyTorch's names and shapes -> `flax_model.msgpack`; arrays named in `chunked` in pieces, as large ones are."""
    tree: dict[str, Any] = {}
    for name, tensor in state.items():
        *above, last = name.split(".")
        values = tensor.numpy()
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        if last == "weight" and values.ndim == 2 and "embeddings" in (above[-1], above[-1].split("_")[-1]):
            last = "embedding"
        elif last == "weight" and values.ndim == 2:
            last, values = "kernel", values.T
        elif last == "weight":
            last = "scale"
        node[last] = in_chunks(values) if name in chunked else values
    path.write_bytes(msgpack.packb(tree, default=packed, strict_types=True))
    return path


def in_chunks(values: np.ndarray) -> dict[str, Any]:
    pieces = np.array_split(values.ravel(), 3)
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(index): size for index, size in enumerate(values.shape)},
        "chunks": {str(index): piece for index, piece in enumerate(pieces)},
    }


def packed(values: Any) -> msgpack.ExtType:
    assert isinstance(values, np.ndarray)
    return msgpack.ExtType(1, msgpack.packb((values.shape, values.dtype.name, values.tobytes()), use_bin_type=True))
