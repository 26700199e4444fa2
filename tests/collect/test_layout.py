"""Layouts from configurations alone."""

from __future__ import annotations

import pytest

from pea.cache import Cache
from pea.collect.layout import bucket_layouts
from pea.config import Config
from pea.errors import CheckpointError, ConfigError


def test_layout_is_what_a_cache_then_holds(tiny_sdxl: Config) -> None:
    layouts = bucket_layouts(tiny_sdxl.teacher.checkpoint, tiny_sdxl.cache)
    for shard in Cache.open(tiny_sdxl.cache_dir("parallel")).shards:
        for name, bucket in shard.buckets.items():
            planned = {spec.name: (spec.level, spec.dtype, spec.shape) for spec in layouts[name].arrays}
            written = {spec.name: (spec.level, spec.dtype, spec.shape) for spec in bucket.arrays.values()}
            assert written == planned


def test_latents_follow_the_bucket(tiny_sdxl: Config) -> None:
    layouts = bucket_layouts(tiny_sdxl.teacher.checkpoint, tiny_sdxl.cache)
    assert {name: layout.latent_shape for name, layout in layouts.items()} == {
        "16x16": (4, 8, 8),
        "16x24": (4, 8, 12),
    }


def test_without_teacher_there_are_no_records(tiny_sdxl: Config) -> None:
    layouts = bucket_layouts(tiny_sdxl.teacher.checkpoint, tiny_sdxl.cache, teacher=False)
    assert {spec.level for layout in layouts.values() for spec in layout.arrays} == {"sample"}


def test_bucket_that_the_vae_cannot_take(tiny_sdxl: Config) -> None:
    cache = tiny_sdxl.cache.model_copy(update={"buckets": ((17, 16),)})
    with pytest.raises(ConfigError, match=r"multiples of 2 px; got 17x16"):
        bucket_layouts(tiny_sdxl.teacher.checkpoint, cache)


def test_missing_checkpoint(tiny_sdxl: Config) -> None:
    with pytest.raises(CheckpointError, match="no VAE configuration"):
        bucket_layouts(tiny_sdxl.teacher.checkpoint / "elsewhere", tiny_sdxl.cache)
