"""The teacher's cross-attention queries in a cache: which a record keeps, how they are stored, and how they are read.

Which layers and positions a record keeps is drawn by its key, like its noise.

Shapes: S samples at one draw, B records, Q queries, C width of a layer, n layers of a group that a record keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.cache.query_arrays import QueryGroup, query_arrays
from pea.cache.schema import QUERIES, QUERY_LAYERS, QUERY_SCALES, ArraySpec
from pea.config import AttentionConfig
from pea.draws.recipe import DrawRecipe, query_positions
from pea.errors import ConfigError
from pea.models.conditioning import Conditioning, on_device
from pea.sketch.sketch import to_numpy

_SMALLEST = 2.0**-126
_INT8_MAX = 127.0
Arrays = dict[str, npt.NDArray[Any]]


class LayerQueries(NamedTuple):
    """The queries of one cross-attention layer in a batch of B records."""

    rows: Tensor
    """Which records keep this layer, int64 `[R]`, rising."""
    queries: Tensor
    """Theirs, float `[R, Q, C]`."""
    share: float = 1.0
    """Probability that a record keeps this layer."""

    def to(self, device: torch.device | str) -> LayerQueries:
        """The same on `device`."""
        return LayerQueries(self.rows.to(device), self.queries.to(device), self.share)

    def of(self, picked: Tensor, num_records: int) -> LayerQueries:
        """Those of some of the batch's records, int64, rising, which are numbered anew."""
        places = torch.full((num_records,), -1)
        places[picked] = torch.arange(len(picked))
        found = places[self.rows]
        return LayerQueries(found[found >= 0], self.queries[found >= 0], self.share)


@dataclass(frozen=True)
class AttentionTargets:
    """What attention distillation asks of P records: the teacher's queries, and the text that the teacher read."""

    queries: dict[str, LayerQueries]
    """Cross-attention layer -> the queries of the records that keep them; a layer that none keeps is absent."""
    english: Conditioning
    """Of the English captions; of the empty one where it was dropped."""
    time_ids: Tensor
    """int64 `[P, 6]`."""

    def of(self, picked: Tensor) -> AttentionTargets:
        """Those of some of the records, int64, rising."""
        hidden, pooled = self.english
        english = Conditioning(hidden[picked], None if pooled is None else pooled[picked])
        num_records = len(self.time_ids)
        queries = {name: each.of(picked, num_records) for name, each in self.queries.items()}
        kept = {name: each for name, each in queries.items() if len(each.rows)}
        return AttentionTargets(kept, english, self.time_ids[picked])

    def asking(self, queries: Mapping[str, Tensor]) -> AttentionTargets:
        """The same text with other queries, layer -> float `[B, Q, C]`, those of the P records first; detached."""
        rows = torch.arange(len(self.time_ids), device=self.time_ids.device)
        asked = {name: LayerQueries(rows, each[: len(rows)].detach()) for name, each in queries.items()}
        return AttentionTargets(asked, self.english, self.time_ids)

    def to(self, device: torch.device | str) -> AttentionTargets:
        """The same on `device`."""
        queries = {name: each.to(device) for name, each in self.queries.items()}
        return AttentionTargets(queries, on_device(self.english, device), self.time_ids.to(device))


@dataclass(frozen=True)
class QueryLayout:
    """What a cache keeps for attention distillation."""

    positions: dict[str, tuple[int, int]]
    """Cross-attention layer -> (spatial positions, width of a query)."""
    text_shape: tuple[int, int]
    """(tokens, width) of the English text states."""
    pooled_dim: int | None
    """Width of the pooled embedding; None without one."""
    config: AttentionConfig
    """How many, and in which type."""

    @cached_property
    def groups(self) -> tuple[QueryGroup, ...]:
        """Layers with queries of one shape share an array where a record keeps only some of them.

        Raises:
            ConfigError: fewer layers per record than there are shapes.
        """
        shapes = {name: (min(self.config.num_queries, count), width) for name, (count, width) in self.positions.items()}
        if self.config.layers_per_record is None:
            return tuple(QueryGroup(name, (name,), 1, shape) for name, shape in shapes.items())
        alike: dict[tuple[int, int], list[str]] = {}
        for name, shape in shapes.items():
            alike.setdefault(shape, []).append(name)
        counts = _allot(self.config.layers_per_record, [len(names) for names in alike.values()])
        return tuple(
            QueryGroup(f"{shape[0]}x{shape[1]}", tuple(names), count, shape, drawn=True)
            for (shape, names), count in zip(alike.items(), counts, strict=True)
        )

    @property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays that are stored."""
        return query_arrays(self.groups, self.text_shape, self.pooled_dim, self.config.dtype)

    def draw(self, recipe: DrawRecipe, sample_ids: Sequence[str], draw: int) -> DrawnQueries:
        """What one draw of S samples keeps."""
        positions = {
            name: query_positions(recipe, name, sample_ids, draw, count, self.config.num_queries)
            for name, (count, _) in self.positions.items()
        }
        layers = {
            group.name: query_positions(
                recipe, f"layers {group.name}", sample_ids, draw, len(group.layers), group.num_kept
            ).astype(np.int16)
            for group in self.groups
            if group.drawn
        }
        return DrawnQueries(positions, layers)

    def rows(self, queries: Mapping[str, Tensor], drawn: DrawnQueries) -> Arrays:
        """Layer -> `[S, Q, C]`, as the arrays `[S, ...]` that are stored."""
        stored: Arrays = {f"{QUERY_LAYERS}/{name}": layers for name, layers in drawn.layers.items()}
        for group in self.groups:
            if group.drawn:
                every = torch.stack([queries[name] for name in group.layers], dim=1)
                chosen = torch.from_numpy(drawn.layers[group.name].astype(np.int64)).to(every.device)
                kept = every[torch.arange(len(every), device=every.device)[:, None], chosen]
            else:
                kept = queries[group.name]
            for prefix, values in encode_queries(kept, self.config.dtype).items():
                stored[f"{prefix}/{group.name}"] = to_numpy(values)
        return stored


class DrawnQueries(NamedTuple):
    """Where the queries of S records are taken."""

    positions: dict[str, npt.NDArray[np.int64]]
    """Layer -> `[S, Q]`."""
    layers: dict[str, npt.NDArray[np.int16]]
    """Group -> `[S, n]`, places in the group's list of layers; empty where every layer is kept."""


def text_dtype(dtype: str) -> torch.dtype:
    """Type of the stored text states, and of whatever is not int8, for the configured type."""
    found: torch.dtype = torch.float16 if dtype == "int8" else getattr(torch, dtype)
    return found


def encode_queries(queries: Tensor, dtype: str) -> dict[str, Tensor]:
    """Queries float `[..., Q, C]` as stored: rounded to nearest; int8 has a float32 scale per query `[..., Q]`."""
    if dtype != "int8":
        return {QUERIES: queries.to(getattr(torch, dtype))}
    scales = (queries.float().abs().amax(-1) / _INT8_MAX).clamp_min(_SMALLEST)
    rounded = (queries.float() / scales[..., None]).nan_to_num(0.0).round().clamp(-_INT8_MAX, _INT8_MAX)
    return {QUERIES: rounded.to(torch.int8), QUERY_SCALES: scales}


def decode_queries(arrays: Mapping[str, npt.NDArray[Any]], group: str) -> Tensor:
    """The queries of a group as stored -> floats `[..., Q, C]`."""
    queries = torch.from_numpy(np.ascontiguousarray(arrays[f"{QUERIES}/{group}"]))
    scales = arrays.get(f"{QUERY_SCALES}/{group}")
    return queries if scales is None else queries.float() * torch.from_numpy(np.ascontiguousarray(scales))[..., None]


def read_queries(arrays: Arrays, specs: Mapping[str, ArraySpec]) -> dict[str, LayerQueries]:
    """Stored arrays of B records `[B, ...]` -> layer -> its queries; a layer that no record keeps is absent."""
    found: dict[str, LayerQueries] = {}
    for name in arrays:
        prefix, _, group = name.partition("/")
        if prefix != QUERIES:
            continue
        queries = decode_queries(arrays, group)
        index = f"{QUERY_LAYERS}/{group}"
        if index not in arrays:
            found[group] = LayerQueries(torch.arange(len(queries)), queries)
            continue
        layers, chosen = specs[index].attributes["layers"], torch.from_numpy(arrays[index])
        for place in np.unique(arrays[index]).tolist():
            rows, slots = torch.nonzero(chosen == place, as_tuple=True)
            found[layers[place]] = LayerQueries(rows, queries[rows, slots], chosen.shape[1] / len(layers))
    return found


def _allot(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` places for groups of these sizes, in proportion, at least one and at most all for each."""
    if total < len(sizes):
        raise ConfigError(
            "too few layers per record",
            where="cache.attention.layers_per_record",
            expected=f"at least {len(sizes)}, one for each shape of queries",
            got=total,
        )
    total = min(total, sum(sizes))
    counts = [1] * len(sizes)
    while sum(counts) < total:
        wanting = [
            size * total / sum(sizes) - n if n < size else -math.inf for size, n in zip(sizes, counts, strict=True)
        ]
        counts[wanting.index(max(wanting))] += 1
    return counts
