"""Arithmetic of training, counted from shapes: floating-point operations of one row, forward and backward.

A multiplication and an addition count as two, as in `pea.costs`. Counted are the adapter, the student's UNet (its
backward pass to the text costs as much as the forward pass; one more where activations are recomputed), the teacher's
UNet where it is asked (`train.targets=live`), and the frozen cross-attention layers with both texts. Not counted: the
text encoders, whose states are computed once for each caption; the VAE, which training does not run; optimizer,
validation, pictures, and the gradients of LoRA and K/V matrices.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache, cached_property

import torch
from torch.utils.flop_counter import FlopCounterMode

from pea.collect.layout import latent_shape, query_layout
from pea.config import AttentionConfig, Config
from pea.corpus.samples import bucket_name
from pea.costs.attention import attention_flops
from pea.costs.caching import Models, read_models, unet_flops
from pea.models.adapter import PEA

_EVERY_POSITION = 1 << 30
RowCounts = Mapping[str, tuple[float, float]]
"""Bucket -> rows of an epoch: parallel, culture."""


class RowFlops:
    """Floating-point operations of one row in each kind of phase, the mean over the latent shapes of an epoch."""

    def __init__(self, config: Config, adapter: PEA, rows: RowCounts, models: Models | None = None) -> None:
        """`config`: with the settings of the phase; `models`: in the place of those in the teacher's folder."""
        self.config, self.train, self.rows = config, config.train, dict(rows)
        self._given = models
        self.num_tokens = int(adapter.config.max_tokens)
        self.adapter = adapter_flops(adapter)

    @property
    def text(self) -> float:
        """In a phase of kind text."""
        return self.adapter

    @property
    def attention(self) -> float:
        """In a phase of kind attention."""
        layers = self._layers(self.config.cache.attention or AttentionConfig())
        return self.adapter + self._mean({name: (each, each) for name, each in layers.items()})

    @property
    def unet(self) -> float:
        """In a phase of kind unet."""
        parallel, culture = self._unet_passes
        total = self.adapter + self._mean({name: (parallel * f, culture * f) for name, f in self._unet.items()})
        if self.train.attention_weight:
            asked = self.config.cache.attention or AttentionConfig()
            if self.train.attention_queries == "student":
                asked = asked.model_copy(update={"num_queries": _EVERY_POSITION, "layers_per_record": None})
            total += self._mean({name: (each, 0.0) for name, each in self._layers(asked).items()})
        if self.train.targets == "live":
            total += self._mean({name: (each, 0.0) for name, each in self._unet.items()})
        return total

    @property
    def unet_share(self) -> float:
        """Share of a ``unet`` phase's rows that pass the student's UNet."""
        parallel, culture = self._unet_passes
        return self._mean({name: (float(parallel > 0), float(culture > 0)) for name in self.rows})

    @property
    def _unet_passes(self) -> tuple[int, int]:
        """Passes of a parallel and of a culture row, there and back, as `student_losses` asks for them."""
        train, passes = self.train, 3 if self.train.gradient_checkpointing else 2
        culture = passes if train.diffusion_weight > 0 else 0
        own_queries = train.attention_weight > 0 and train.attention_queries == "student"
        if train.noise_pred_weight > 0 or train.feature_weight > 0 or (train.diffusion_rows == "all" and culture):
            return passes, passes
        if own_queries:  # with culture rows, one pass has them all
            alone = not culture or not any(count for _, count in self.rows.values())
            return (1, 1) if alone else (passes, passes)
        if not (culture or train.text_weight or train.attention_weight):
            return passes, passes
        return 0, culture

    def _mean(self, flops: Mapping[str, tuple[float, float]]) -> float:
        """Bucket -> operations of a parallel and of a culture row, as the mean over all rows."""
        total = sum(p * flops[name][0] + c * flops[name][1] for name, (p, c) in self.rows.items())
        return total / sum(p + c for p, c in self.rows.values())

    @cached_property
    def _models(self) -> Models:
        return self._given or read_models(self.config.teacher.folder)

    @cached_property
    def _latent_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Bucket -> (c, h, w)."""
        names = {bucket_name(bucket): bucket for bucket in self.config.cache.buckets}
        return {name: latent_shape(self._models.vae, names[name]) for name in self.rows}

    @cached_property
    def _unet(self) -> dict[str, float]:
        """Bucket -> one forward pass of the UNet."""
        unet = self._models.unet
        return {name: unet_flops(unet, shape, self.num_tokens) for name, shape in self._latent_shapes.items()}

    def _layers(self, asked: AttentionConfig) -> dict[str, float]:
        """Bucket -> the cross-attention layers' share of a record with these queries."""
        unet, shapes, num_tokens = json.dumps(dict(self._models.unet)), self._latent_shapes, self._models.num_tokens
        return {name: _layers_flops(unet, shape, asked, num_tokens) for name, shape in shapes.items()}


@cache
def _layers_flops(
    unet_json: str, latent_shape: tuple[int, int, int], attention: AttentionConfig, num_tokens: int
) -> float:
    unet = json.loads(unet_json)
    layout = query_layout(unet, latent_shape, attention, num_tokens)
    return 0.0 if layout is None else attention_flops(unet, layout)


def adapter_flops(adapter: PEA) -> float:
    """Of one caption as long as the adapter's captions are: forward, and backward to the adapter's parameters."""
    alone = copy.deepcopy(adapter).to("meta").requires_grad_(True)
    states = torch.zeros(1, int(adapter.config.max_tokens), int(adapter.config.input_dim), device="meta")
    with FlopCounterMode(display=False) as counter:
        hidden, pooled = alone(states)
        total = hidden.sum() if pooled is None else hidden.sum() + pooled.sum()
        total.backward()
    return float(counter.get_total_flops())
