"""The arrays of attention distillation: random queries of the teacher per record, the English text per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pea.cache.schema import QUERIES, QUERY_LAYERS, QUERY_SCALES, TEXT_POOLED, TEXT_STATES, ArraySpec


@dataclass(frozen=True)
class QueryGroup:
    """Cross-attention layers with queries of one shape."""

    name: str
    """Of its arrays: the layer's path where there is only one."""
    layers: tuple[str, ...]
    """Module paths."""
    num_kept: int
    """Layers that a record keeps."""
    shape: tuple[int, int]
    """(number of queries, width of a query)."""
    drawn: bool = False
    """Whether each record draws its layers; their places in ``layers`` are stored with it."""


def query_arrays(
    groups: Sequence[QueryGroup], text_shape: tuple[int, int], pooled_dim: int | None, dtype: str
) -> tuple[ArraySpec, ...]:
    """The arrays of attention distillation: queries per record, the English text states per sample.

    ``text_shape``: (tokens, width). ``dtype`` int8: queries with a scale each; the text states are float16 then.
    """
    text, text_dtype = {"source": "text encoders", "meaning": "of the undropped caption"}, dtype
    if dtype == "int8":
        text_dtype = "float16"
    arrays = [ArraySpec(TEXT_STATES, "sample", text_dtype, text_shape, ("token", "text_channel"), text)]
    if pooled_dim is not None:
        arrays.append(ArraySpec(TEXT_POOLED, "sample", text_dtype, (pooled_dim,), ("pooled_channel",), text))
    for group in groups:
        arrays += _group_arrays(group, dtype)
    return tuple(arrays)


def _group_arrays(group: QueryGroup, dtype: str) -> list[ArraySpec]:
    source: dict[str, Any] = {"source": "unet", "layers": list(group.layers)}
    shape: tuple[int, ...] = group.shape
    names: tuple[str, ...] = ("query", "query_channel")
    arrays = []
    if group.drawn:
        meaning = {**source, "meaning": "which of the layers this record keeps"}
        name = f"{QUERY_LAYERS}/{group.name}"
        arrays.append(ArraySpec(name, "record", "int16", (group.num_kept,), ("layer",), meaning))
        shape, names = (group.num_kept, *shape), ("layer", *names)
    meaning = {**source, "meaning": "output of to_q at random positions"}
    arrays.append(ArraySpec(f"{QUERIES}/{group.name}", "record", dtype, shape, names, meaning))
    if dtype == "int8":
        meaning = {**source, "meaning": "factor of each query"}
        arrays.append(ArraySpec(f"{QUERY_SCALES}/{group.name}", "record", "float32", shape[:-1], names[:-1], meaning))
    return arrays
