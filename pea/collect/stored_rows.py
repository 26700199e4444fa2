"""What is stored of the models' answers, as the rows of a cache's arrays.

Shapes: S samples of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.attention.queries import text_dtype
from pea.cache.schema import NOISE_PRED, TEXT_POOLED, TEXT_STATES
from pea.collect.layout import BucketLayout
from pea.config import AttentionConfig, CacheConfig
from pea.models.conditioning import Conditioning
from pea.models.unet import UNetOutput
from pea.sketch.sketch import to_numpy

Arrays = dict[str, npt.NDArray[Any]]
Mask = npt.NDArray[np.bool_]


def text_rows(conditioning: Conditioning, attention: AttentionConfig | None) -> tuple[Arrays, Mask | np.bool_]:
    """The English text states that are stored of each sample, and which samples' are finite ``[S]``."""
    if attention is None:
        return {}, np.bool_(True)
    dtype = text_dtype(attention.dtype)
    named = {TEXT_STATES: conditioning.encoder_hidden_states, TEXT_POOLED: conditioning.pooled_prompt_embeds}
    stored = {name: states.to(dtype) for name, states in named.items() if states is not None}
    return {name: to_numpy(rows) for name, rows in stored.items()}, finite(*stored.values()).cpu().numpy()


def kept_rows(
    output: UNetOutput,
    record_ids: npt.NDArray[np.uint64],
    layout: BucketLayout,
    blocks: Sequence[str],
    cache: CacheConfig,
) -> Arrays:
    """What is stored of one draw's answers, ``[S, ...]``, and whether it is ``healthy``, bool ``[S]``."""
    kept, healthy = _noise_pred_rows(output.noise_pred, record_ids, layout, cache)
    for block in blocks:
        sketch = layout.sketches[block]
        stored = sketch.encode(output.features[block], record_ids)
        healthy &= sketch.finite(stored)
        kept |= {f"features/{block}/{suffix}": to_numpy(values) for suffix, values in stored.items()}
    if output.queries and cache.attention is not None:
        dtype = text_dtype(cache.attention.dtype)
        healthy &= finite(*(queries.to(dtype) for queries in output.queries.values()))
    return kept | {"healthy": healthy.cpu().numpy()}


def _noise_pred_rows(
    noise_pred: Tensor, record_ids: npt.NDArray[np.uint64], layout: BucketLayout, cache: CacheConfig
) -> tuple[Arrays, Tensor]:
    """What is stored of the noise prediction, and whether it is finite, bool ``[S]``."""
    if layout.noise_pred_sketch is None:
        whole = noise_pred.to(getattr(torch, cache.noise_pred_dtype))
        return {NOISE_PRED: to_numpy(whole)}, finite(whole)
    stored = layout.noise_pred_sketch.encode(noise_pred, record_ids)
    named = {f"{NOISE_PRED}/{suffix}": to_numpy(values) for suffix, values in stored.items()}
    return named, layout.noise_pred_sketch.finite(stored)


def finite(*tensors: Tensor) -> Tensor:
    """Whether all values of each row are finite: bool ``[S]``."""
    return torch.stack([torch.isfinite(tensor).flatten(1).all(1) for tensor in tensors]).all(0)
