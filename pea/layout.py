"""What a record holds and how large it is, from configurations alone: no weights are needed.

Shapes: c,h,w latents; C,H,W the feature map of a block; height and width of images in px.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pea.cache.schema import ArraySpec, base_arrays, feature_arrays
from pea.config import CacheConfig
from pea.errors import CheckpointError, ConfigError
from pea.samples import bucket_name
from pea.sketch import Sketch, make_sketch
from pea.teacher import block_shapes, unet_config


@dataclass(frozen=True)
class BucketLayout:
    """The arrays of one bucket."""

    latent_shape: tuple[int, int, int]
    """(c, h, w)."""
    feature_shapes: dict[str, tuple[int, int, int]]
    """Block -> (C, H, W); empty without a teacher."""
    config: CacheConfig
    """Sketches and types."""

    @cached_property
    def sketches(self) -> dict[str, Sketch]:
        """Block -> its sketch."""
        shapes = self.feature_shapes.items()
        return {
            name: make_sketch(self.config.sketch_for(name), self.config.seed, name, shape) for name, shape in shapes
        }

    @cached_property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """Every array that is stored."""
        noise_pred_dtype = self.config.noise_pred_dtype if self.feature_shapes else None
        arrays = list(base_arrays(self.latent_shape, self.config.moments_dtype, noise_pred_dtype))
        for block, sketch in self.sketches.items():
            arrays += feature_arrays(block, sketch.arrays, self.config.sketch_for(block).model_dump(mode="json"))
        return tuple(arrays)


def bucket_layouts(checkpoint: Path, config: CacheConfig, *, teacher: bool = True) -> dict[str, BucketLayout]:
    """Bucket name -> layout, for a diffusers checkpoint folder. ``teacher`` False: captions and VAE moments only.

    Raises:
        CheckpointError: the folder has no UNet or VAE configuration.
        ConfigError: a block does not exist, or a bucket's size does not fit the models.
    """
    return layouts_of(vae_config(checkpoint), unet_config(checkpoint) if teacher else None, config)


def layouts_of(vae: Mapping[str, Any], unet: Mapping[str, Any] | None, config: CacheConfig) -> dict[str, BucketLayout]:
    """Bucket name -> layout, from the models' configurations.

    Raises:
        ConfigError: a block does not exist, or a bucket's size does not fit the models.
    """
    layouts = {}
    for bucket in config.buckets:
        latent = latent_shape(vae, bucket)
        shapes = {} if unet is None else _feature_shapes(unet, latent, config, bucket)
        layouts[bucket_name(bucket)] = BucketLayout(latent, shapes, config)
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


def vae_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration in ``<checkpoint>/vae``.

    Raises:
        CheckpointError: there is none.
    """
    path = checkpoint / "vae" / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("no VAE configuration", where=path, got=error) from None
    return config


def _feature_shapes(
    unet: Mapping[str, Any], latent: tuple[int, int, int], config: CacheConfig, bucket: tuple[int, int]
) -> dict[str, tuple[int, int, int]]:
    try:
        return block_shapes(unet, latent[1:], config.blocks)
    except RuntimeError as error:  # a skip connection does not fit an odd size
        raise ConfigError(
            "the bucket does not fit the UNet", where="cache.buckets", got=f"{bucket[0]}x{bucket[1]}: {error}"
        ) from error
