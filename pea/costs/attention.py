"""Arithmetic of the attention phase, counted from configurations: no weights are needed.

FLOPs count a multiplication and an addition as two, as in `pea.costs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pea.attention.layers import AttentionLayers, Powers, Take
from pea.attention.queries import AttentionTargets, LayerQueries, QueryLayout
from pea.collect.layout import BucketLayout
from pea.costs.caching import query_bytes
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.unet_shapes import unet_on_meta


def attention_costs(unet: Mapping[str, Any], layout: BucketLayout, num_draws: int) -> dict[str, float] | None:
    """What a plan says of the queries that a cache keeps, where it keeps any: bytes and TFLOP per record."""
    if layout.queries is None:
        return None
    tflop = attention_flops(unet, layout.queries) / 1e12
    return {"bytes_per_record": query_bytes(layout, num_draws), "tflop_per_record": tflop}


def attention_flops(unet: Mapping[str, Any], layout: QueryLayout, adapter: PEA | None = None) -> float:
    """Of one record: both texts through its share of the layers, and back to the student's text.

    With an adapter, also its forward and backward pass over as many tokens as the English text has.
    """
    layers = AttentionLayers.assemble(unet, meta_parameters(unet), tuple(layout.positions))
    with torch.device("meta"):
        text = [_text(layout), _text(layout)]
        shared = _count(layers, layout, {}, text)  # the pooled term, which every record has
        total = shared
        for group in layout.groups:
            for name in group.layers:
                queries = {name: LayerQueries(torch.arange(1), torch.zeros(1, *group.shape))}
                share = group.num_kept / len(group.layers)
                total += share * (_count(layers, layout, queries, text) - shared)
    return total + (0.0 if adapter is None else _adapter_flops(adapter, layout.text_shape[0]))


def _count(
    layers: AttentionLayers, layout: QueryLayout, queries: Mapping[str, LayerQueries], text: Sequence[Conditioning]
) -> float:
    powers = Powers(dict.fromkeys(layout.positions, 1.0))
    student, english = text
    with FlopCounterMode(display=False) as counter:
        losses = layers.losses(AttentionTargets(dict(queries), english, torch.zeros(1, 6)), student, powers)
        if losses.total.requires_grad:
            losses.total.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops())


def _text(layout: QueryLayout) -> Conditioning:
    pooled = None if layout.pooled_dim is None else torch.zeros(1, layout.pooled_dim, requires_grad=True)
    return Conditioning(torch.zeros(1, *layout.text_shape, requires_grad=True), pooled)


def _adapter_flops(adapter: PEA, num_tokens: int) -> float:
    """Forward, and backward to the adapter's own parameters."""
    weights = sum(int(parameter.numel()) for parameter in adapter.parameters() if parameter.ndim == 2)
    return 6.0 * weights * num_tokens


def meta_parameters(unet: Mapping[str, Any]) -> Take:
    """A UNet's parameters without data, for `AttentionLayers.assemble`."""
    module = unet_on_meta(unet)

    def take(name: str, names: Sequence[str]) -> dict[str, Tensor]:
        return {each: module.get_parameter(f"{name}.{each}").detach() for each in names}

    return take
