"""What a record holds and how large it is, from configurations alone: no weights are needed.

Shapes: c,h,w latents; C,H,W the feature map of a block; height and width of images in px.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pea.attention.queries import QueryLayout
from pea.cache.schema import (
    NOISE_PRED,
    ArraySpec,
    base_arrays,
    feature_arrays,
    noise_errors_array,
    trajectory_array,
)
from pea.config import AttentionConfig, CacheConfig
from pea.corpus.samples import bucket_name
from pea.errors import CheckpointError, ConfigError
from pea.file_names import MODEL_CONFIG
from pea.models.teacher_parts import pooled_dim_of
from pea.models.unet import unet_config
from pea.models.unet_shapes import block_shapes, query_shapes
from pea.models.vae import vae_config
from pea.sketch.sketch import Sketch, make_sketch

_NUM_TOKENS = 77
"""Tokens of a CLIP text encoder."""


@dataclass(frozen=True)
class BucketLayout:
    """The arrays of one bucket."""

    latent_shape: tuple[int, int, int]
    """(c, h, w)."""
    feature_shapes: dict[str, tuple[int, int, int]]
    """Block -> (C, H, W); empty without a teacher."""
    config: CacheConfig
    """Sketches and types."""
    queries: QueryLayout | None = None
    """None: no queries are kept."""
    with_errors: bool = False
    """Whether the errors of the noise prediction are kept, with text and without."""
    trajectory: bool = False
    """Whether a record keeps the latents that the teacher was asked about."""

    @cached_property
    def sketches(self) -> dict[str, Sketch]:
        """Block -> its sketch."""
        shapes = self.feature_shapes.items()
        return {
            name: make_sketch(self.config.sketch_for(name), self.config.seed, name, shape) for name, shape in shapes
        }

    @cached_property
    def noise_pred_sketch(self) -> Sketch | None:
        """The sketch of the noise prediction; None where it is kept whole."""
        config = self.config.noise_pred_sketch
        return None if config is None else make_sketch(config, self.config.seed, NOISE_PRED, self.latent_shape)

    @cached_property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """Every array that is stored."""
        noise_pred_dtype = self.config.noise_pred_dtype if self.feature_shapes or self.queries else None
        sketch, kept = self.noise_pred_sketch, self.config.noise_pred_sketch
        arrays = list(
            base_arrays(
                self.latent_shape,
                self.config.moments_dtype,
                noise_pred_dtype,
                None if sketch is None else sketch.arrays,
                None if kept is None else kept.model_dump(mode="json"),
            )
        )
        for block, sketch in self.sketches.items():
            arrays += feature_arrays(block, sketch.arrays, self.config.sketch_for(block).model_dump(mode="json"))
        if self.queries is not None:
            arrays += self.queries.arrays
        if self.with_errors:
            arrays.append(noise_errors_array())
        if self.trajectory:
            arrays.append(trajectory_array(self.latent_shape, self.config.moments_dtype))
        return tuple(arrays)


def bucket_layouts(
    checkpoint: Path,
    config: CacheConfig,
    *,
    teacher: bool = True,
    trajectory: bool = False,
    with_errors: bool = False,
) -> dict[str, BucketLayout]:
    """Bucket name -> layout, for a diffusers checkpoint folder. ``teacher`` False: captions and VAE moments only.

    ``trajectory``: records keep the latents that the teacher was asked about. ``with_errors``: they keep the errors of
    the noise prediction.

    Raises:
        CheckpointError: the folder has no UNet or VAE configuration.
        ConfigError: a block does not exist, or a bucket's size does not fit the models.
    """
    tokens = _num_tokens(checkpoint) if teacher and config.attention else _NUM_TOKENS
    found = layouts_of(vae_config(checkpoint), unet_config(checkpoint) if teacher else None, config, tokens)
    return {name: replace(layout, trajectory=trajectory, with_errors=with_errors) for name, layout in found.items()}


def layouts_of(
    vae: Mapping[str, Any], unet: Mapping[str, Any] | None, config: CacheConfig, num_tokens: int = _NUM_TOKENS
) -> dict[str, BucketLayout]:
    """Bucket name -> layout, from the models' configurations.

    Raises:
        ConfigError: a block does not exist, or a bucket's size does not fit the models.
    """
    layouts = {}
    for bucket in config.buckets:
        latent = latent_shape(vae, bucket)
        shapes = {} if unet is None else _feature_shapes(unet, latent, config, bucket)
        queries = None if unet is None else query_layout(unet, latent, config.attention, num_tokens)
        layouts[bucket_name(bucket)] = BucketLayout(latent, shapes, config, queries)
    return layouts


def latent_shape(vae: Mapping[str, Any], bucket: tuple[int, int]) -> tuple[int, int, int]:
    """(c, h, w) of an image of ``bucket`` (height, width) px.

    Raises:
        ConfigError: the VAE cannot halve the image as often as it must.
    """
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    height, width = bucket
    if height % factor or width % factor:
        raise ConfigError(
            "the bucket does not fit the VAE",
            where="cache.buckets",
            expected=f"multiples of {factor} px",
            got=f"{height}x{width}",
        )
    return int(vae["latent_channels"]), height // factor, width // factor


def _num_tokens(checkpoint: Path) -> int:
    path = checkpoint / "text_encoder" / MODEL_CONFIG
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["max_position_embeddings"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError("no text encoder configuration", where=path, got=error) from None


def query_layout(
    unet: Mapping[str, Any], latent: tuple[int, int, int], attention: AttentionConfig | None, num_tokens: int
) -> QueryLayout | None:
    """What is kept of the queries for latents of this shape; None where nothing is."""
    if attention is None:
        return None
    positions = query_shapes(unet, latent[1:], attention.layers)
    text_shape = (num_tokens, int(unet["cross_attention_dim"]))
    return QueryLayout(positions, text_shape, pooled_dim_of(unet), attention)


def _feature_shapes(
    unet: Mapping[str, Any], latent: tuple[int, int, int], config: CacheConfig, bucket: tuple[int, int]
) -> dict[str, tuple[int, int, int]]:
    try:
        return block_shapes(unet, latent[1:], config.blocks)
    except RuntimeError as error:  # a skip connection does not fit an odd size
        raise ConfigError(
            "the bucket does not fit the UNet", where="cache.buckets", got=f"{bucket[0]}x{bucket[1]}: {error}"
        ) from error
