"""What a cache will cost: bytes and arithmetic, from configurations alone; no weights are needed.

FLOPs count a multiplication and an addition as two. The student's backward pass flows to the text only: it costs as
much as the forward pass, because the frozen weights take no gradient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numcodecs.zstd import Zstd
from torch.utils.flop_counter import FlopCounterMode

from pea.cache.schema import NOISE_PRED, ArraySpec, block_of, gains_by_compression
from pea.collect.layout import BucketLayout
from pea.file_names import MODEL_CONFIG
from pea.models.teacher_parts import pooled_dim_of, text_config
from pea.models.unet import unet_config
from pea.models.unet_shapes import unet_on_meta
from pea.models.vae import vae_config, vae_on_meta

NUM_TOKENS = 77
_SAMPLE_BYTES = 256 << 10
_BYTES_PER_ARRAY = 1100  # its zarr.json, the index of its zarr shard, checksums
_BYTES_PER_CHUNK = 20  # its place in the index, and its checksum
_FP16_BYTES = 2
_TEXT_DEFAULTS = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
"""Source: transformers `CLIPTextConfig`."""


@dataclass(frozen=True)
class Models:
    """Configurations of the frozen models, as in a diffusers checkpoint folder."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Sequence[Mapping[str, Any]]
    """One per English encoder."""

    @property
    def num_tokens(self) -> int:
        """Length of the English text states."""
        return int(self.text[0].get("max_position_embeddings", NUM_TOKENS)) if self.text else NUM_TOKENS


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk, by array, estimated with the compression that random values of the same type reach."""

    sample: float
    """Per sample, whatever the number of draws."""
    noise_pred: float
    """Per record."""
    draw: float
    """Per record: timestep, drop, checksum, id."""
    blocks: dict[str, float]
    """Per record and block."""
    exact_fp16_blocks: dict[str, int]
    """Per record and block, had the whole feature map been kept in float16, without compression."""
    shard: float
    """Per shard, whatever it holds."""

    @property
    def record(self) -> float:
        """Per record, without the share of its sample."""
        return self.noise_pred + self.draw + sum(self.blocks.values())

    def total(self, num_samples: int, num_draws: int, num_shards: int) -> float:
        """Of a whole cache, captions left out."""
        return num_samples * (self.sample + num_draws * self.record) + num_shards * self.shard


@dataclass(frozen=True)
class Flops:
    """Arithmetic of one pass over one sample or record."""

    vae: float
    text: float
    unet: float

    def caching(self, num_draws: int) -> float:
        """Per record: one UNet pass, and its share of one VAE pass and one text pass per sample."""
        return self.unet + (self.vae + self.text) / num_draws


def sizes(layout: BucketLayout) -> Sizes:
    """Sizes of one bucket's samples and records."""
    stored = {spec.name: _stored_bytes(spec) for spec in layout.arrays}
    blocks = dict.fromkeys(layout.feature_shapes, 0.0)
    for name, size in stored.items():
        if (block := block_of(name)) is not None:
            blocks[block] += size
    levels = {spec.name: spec.level for spec in layout.arrays if block_of(spec.name) is None}
    noise_pred = [name for name in levels if name.split("/")[0] == NOISE_PRED]
    draw = [name for name, level in levels.items() if level == "record" and name not in noise_pred]
    exact = {name: int(np.prod(shape)) * _FP16_BYTES for name, shape in layout.feature_shapes.items()}
    return Sizes(
        sample=sum(stored[name] for name, level in levels.items() if level == "sample"),
        noise_pred=sum(stored[name] for name in noise_pred),
        draw=sum(stored[name] for name in draw),
        blocks=blocks,
        exact_fp16_blocks=exact,
        shard=_BYTES_PER_ARRAY * (len(stored) + 6),
    )


def query_bytes(layout: BucketLayout, num_draws: int) -> float:
    """Bytes on disk that attention distillation adds to a record, with its share of the sample's text states."""
    arrays = () if layout.queries is None else layout.queries.arrays
    return sum(_stored_bytes(spec) / (num_draws if spec.level == "sample" else 1) for spec in arrays)


def flops(models: Models, layout: BucketLayout, bucket: tuple[int, int]) -> Flops:
    """Arithmetic of the frozen models on one image of ``bucket`` (height, width) px, counted on the meta device."""
    return Flops(
        vae=_vae_flops(json.dumps(dict(models.vae)), bucket),
        text=float(sum(_text_flops(config) for config in models.text)),
        unet=unet_flops(models.unet, layout.latent_shape),
    )


def read_models(checkpoint: Path) -> Models:
    """The configurations in a diffusers checkpoint folder; English encoders that are not there count nothing.

    Raises:
        CheckpointError: one is missing, or describes no model that is supported.
    """
    texts = [checkpoint / name for name in ("text_encoder", "text_encoder_2")]
    text = [_TEXT_DEFAULTS | text_config(folder) for folder in texts if (folder / MODEL_CONFIG).is_file()]
    unet, vae = unet_config(checkpoint), vae_config(checkpoint)
    unet_on_meta(unet), vae_on_meta(vae)
    return Models(unet, vae, text)


def _stored_bytes(spec: ArraySpec) -> float:
    """Bytes of one row on disk."""
    if not gains_by_compression(np.dtype(spec.dtype), spec.shape):
        return spec.row_bytes + _BYTES_PER_CHUNK / spec.rows_per_chunk
    rows = min(spec.rows_per_chunk, max(1, _SAMPLE_BYTES // spec.row_bytes))
    values = _typical_values(spec, rows)
    compressed = len(Zstd(level=1).encode(np.ascontiguousarray(values))) + _BYTES_PER_CHUNK
    return compressed / rows


def _typical_values(spec: ArraySpec, rows: int) -> np.ndarray[Any, Any]:
    """Values that compress as the real ones do: normal, or uniform where every bit is random."""
    random, shape, dtype = np.random.default_rng(0), (rows, *spec.shape), np.dtype(spec.dtype)
    if spec.name in ("timestep", "time_ids"):
        return random.integers(0, 1000, shape).astype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.1
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def unet_flops(unet: Mapping[str, Any], latent_shape: tuple[int, int, int], num_tokens: int = NUM_TOKENS) -> float:
    """Of one forward pass over latents of this shape and a text of so many tokens."""
    return _unet_flops(json.dumps(dict(unet)), latent_shape, num_tokens)


@cache
def _unet_flops(config_json: str, latent_shape: tuple[int, int, int], num_tokens: int) -> float:
    config = json.loads(config_json)
    unet = unet_on_meta(config)
    with torch.device("meta"), torch.no_grad():
        added = None
        if (pooled_dim := pooled_dim_of(config)) is not None:
            added = {"text_embeds": torch.zeros(1, pooled_dim), "time_ids": torch.zeros(1, 6)}
        text = torch.zeros(1, num_tokens, int(config["cross_attention_dim"]))
        with FlopCounterMode(display=False) as counter:
            unet(torch.zeros(1, *latent_shape), torch.zeros(1), encoder_hidden_states=text, added_cond_kwargs=added)
    return float(counter.get_total_flops())


@cache
def _vae_flops(config_json: str, bucket: tuple[int, int]) -> float:
    vae = vae_on_meta(json.loads(config_json))
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.encode(torch.zeros(1, 3, *bucket))
    return float(counter.get_total_flops())


def _text_flops(config: Mapping[str, Any]) -> float:
    """A transformer's matrix products over all tokens; attention scores are small beside them."""
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    return 2.0 * NUM_TOKENS * int(config["num_hidden_layers"]) * (4 * width * width + 2 * width * inner)
