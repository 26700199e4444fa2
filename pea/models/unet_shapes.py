"""A UNet without data: its modules, and the shapes of what it gives, from its configuration alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from pea.models.conditioning import Conditioning
from pea.models.teacher_parts import pooled_dim_of
from pea.models.unet import Blocks, Teacher
from pea.models.without_data import describes_none, on_meta
from pea.storage.digests import canonical_json

_NamedShapes = tuple[tuple[str, tuple[int, ...]], ...]


def unet_on_meta(config: Mapping[str, Any]) -> UNet2DConditionModel:
    """A UNet without data: its modules, and shapes of its tensors and passes.

    Raises:
        CheckpointError: its configuration describes none.
    """
    with on_meta("UNet"):
        unet: UNet2DConditionModel = UNet2DConditionModel.from_config(dict(config))
    return unet


def block_shapes(
    config: Mapping[str, Any], latent_hw: tuple[int, int], blocks: Blocks = "all"
) -> dict[str, tuple[int, int, int]]:
    """Block -> (C, H, W) of its output for latents of `latent_hw`, found on the meta device: no weights are needed."""
    shapes = _output_shapes(canonical_json(config), latent_hw, _hashable(blocks), ())[0]
    return {name: (shape[1], shape[2], shape[3]) for name, shape in shapes}


def query_shapes(
    config: Mapping[str, Any], latent_hw: tuple[int, int], layers: Blocks = "all"
) -> dict[str, tuple[int, int]]:
    """Cross-attention layer -> (spatial positions, width of a query) for latents of `latent_hw`, without weights."""
    shapes = _output_shapes(canonical_json(config), latent_hw, (), _hashable(layers))[1]
    return {name: (shape[1], shape[2]) for name, shape in shapes}


def _hashable(names: Blocks) -> Blocks:
    return names if isinstance(names, str) else tuple(names)


@lru_cache(maxsize=256)
def _output_shapes(
    config_json: str, latent_hw: tuple[int, int], blocks: Blocks, layers: Blocks
) -> tuple[_NamedShapes, _NamedShapes]:
    """Shapes of the features of blocks, and of all queries of layers; remembered, since each costs a whole pass.

    Raises:
        RuntimeError: a size does not fit the UNet.
        CheckpointError: its configuration describes none that gives an answer.
    """
    config = json.loads(config_json)
    unet = unet_on_meta(config)
    with torch.device("meta"):
        pooled_dim = pooled_dim_of(config)
        text = Conditioning(
            torch.zeros(1, 4, int(config["cross_attention_dim"])),
            None if pooled_dim is None else torch.zeros(1, pooled_dim),
        )
        latents = torch.zeros(1, int(config["in_channels"]), *latent_hw)
        teacher = Teacher(unet, DDPMScheduler(), blocks, query_layers=layers)
        try:
            with torch.no_grad():
                output = teacher.forward(latents, torch.zeros(1), text, torch.zeros(1, 6), "all")
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise describes_none("UNet", "UNet that gives an answer", error) from error
    return _shapes(output.features), _shapes(output.queries)


def _shapes(tensors: Mapping[str, Tensor]) -> _NamedShapes:
    return tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())
