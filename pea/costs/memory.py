"""Memory that each kind of work needs at most, from configurations alone: weights, and what a pass holds at a time.

Counted are the tensors that live at the same time (see ``pea.costs.passes``). Not counted: what kernels take for
themselves, the allocator's gaps, the program and its libraries, and on a GPU the driver's own share and what the host
holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from pea.collect.drawing import DRAWN_TOGETHER
from pea.collect.layout import BucketLayout
from pea.collect.overlap import BATCHES_BEHIND, DECODED_AHEAD, batches_at_once
from pea.config import Config
from pea.costs.caching import Models, sizes
from pea.costs.passes import (
    decode_bytes,
    encode_bytes,
    forward_bytes,
    layer_weights,
    step_bytes,
    unet_weights,
    vae_weights,
)
from pea.models.teacher_parts import own_size, pooled_dim_of, vae_dtype
from pea.models.tensor_files import LEFT_OUT, stored_tensors
from pea.models.vae import images_per_pass

_VOCABULARY = 49408
"""Of CLIP. Source: transformers `CLIPTextConfig`."""
_FLOAT32_BYTES = 4
_BATCHES_KEPT = BATCHES_BEHIND + 2  # waiting to be written, being written, and just answered
_ADAM = 4  # parameters, gradients, and two moments
PRECISIONS = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Type that the student's UNet has in a run of this precision."""


def memory_needs(config: Config, models: Models, layout: BucketLayout, num_samples: int) -> dict[str, float]:
    """Kind of work -> most bytes held at a time: ``caching``, ``training`` (a UNet step), ``attention``, ``drawing``.

    ``layout``: of the bucket that stands for all; ``num_samples``: of one tar, where that is less than a batch.
    ``attention`` is there where the cache keeps queries, ``text`` where a phase of that kind is planned. Weights of the
    student's encoder count where its folder is there. Drawing is of one image at the UNet's own size, with guidance, in
    float32.
    """
    unet, vae = json.dumps(dict(models.unet)), json.dumps(dict(models.vae))
    latent, tokens = layout.latent_shape, models.num_tokens
    train = config.train.all_phases[-1].train
    precision = PRECISIONS[train.precision]
    encoder, adapter = _encoder_weights(config.student.places), _adapter_bytes(config, models)
    student = encoder + _ADAM * adapter
    step = step_bytes(unet, latent, tokens, precision, train.gradient_checkpointing, on_cpu=train.device == "cpu")
    needs = {
        "caching": _caching(config, models, layout, num_samples),
        "training": unet_weights(unet, precision) + student + train.batch_size * step,
        "drawing": encoder + adapter + _drawing(unet, vae, latent, tokens, models),
    }
    beside = max(_text_weights(models, config.teacher.dtype), student)  # English is encoded before the student learns
    if layout.queries is not None:
        needs["attention"] = layer_weights(unet, precision) + beside
    if any(phase.kind == "text" for phase in config.train.all_phases):
        needs["text"] = beside
    return needs


def _caching(config: Config, models: Models, layout: BucketLayout, num_samples: int) -> float:
    """Weights, the passes that are under way together, what waits for them, and rows on their way to the store."""
    run, on_cpu = config.cache.run, config.cache.run.device == "cpu"
    batch = min(run.batch_size, num_samples)
    at_once = batches_at_once(num_samples, run.batch_size, max(1, int(run.num_cpus_per_actor)), on_cpu=on_cpu)
    size = sizes(layout)
    rows = batch * (size.sample + config.cache.draws_per_sample * size.record)
    unet = json.dumps(dict(models.unet))
    row = forward_bytes(unet, layout.latent_shape, models.num_tokens, config.teacher.dtype)
    widest = max((_numel(shape) for shape in layout.feature_shapes.values()), default=0) * 2 * _FLOAT32_BYTES
    teacher, ahead = batch * (row + widest), 0.0
    passes = at_once * teacher
    if (vae_type := _vae_type(config, models)) is None:  # texts are drawn in the thread that reads ahead
        with_guidance = 1 if config.corpora.parallel.drawing.guidance == 1 else 2
        ahead = min(DRAWN_TOGETHER, num_samples) * with_guidance * row
    else:
        image = _image(models, layout)
        images = min(batch, images_per_pass(image, on_cpu=on_cpu))
        encoded = images * encode_bytes(json.dumps(dict(models.vae)), image, vae_type)
        passes = max(passes, at_once * encoded if on_cpu else encoded + (at_once - 1) * teacher)
        if on_cpu:
            ahead = min(num_samples, DECODED_AHEAD + at_once * batch) * _FLOAT32_BYTES * 3 * _numel(image)
    return frozen_weights(config, models) + passes + ahead + _BATCHES_KEPT * rows


def frozen_weights(config: Config, models: Models) -> float:
    """Bytes of what the caching stage loads: UNet, English encoders, and the VAE where there are images."""
    dtype, vae_type = config.teacher.dtype, _vae_type(config, models)
    vae = 0.0 if vae_type is None else vae_weights(json.dumps(dict(models.vae)), vae_type)
    return unet_weights(json.dumps(dict(models.unet)), dtype) + vae + _text_weights(models, dtype)


def _vae_type(config: Config, models: Models) -> str | None:
    """Type that the VAE encodes in, which is not the teacher's; None: images are drawn, and it is not loaded."""
    return None if config.corpora.parallel.texts is not None else vae_dtype(models.vae, config.teacher.vae_dtype)


def _image(models: Models, layout: BucketLayout) -> tuple[int, int]:
    """Height and width in px."""
    _, height, width = layout.latent_shape
    factor = 2 ** (len(models.vae["block_out_channels"]) - 1)
    return height * factor, width * factor


def _drawing(unet: str, vae: str, latent: tuple[int, int, int], tokens: int, models: Models) -> float:
    own = (latent[0], *own_size(models.unet))
    passes = (2 * forward_bytes(unet, own, tokens, "float32"), decode_bytes(vae, own, "float32"))
    return unet_weights(unet, "float32") + vae_weights(vae, "float32") + max(passes)


def _text_weights(models: Models, dtype: str) -> float:
    """Of the English encoders."""
    return float(sum(map(_text_numel, models.text)) * _bytes_of(dtype))


def _text_numel(config: Mapping[str, Any]) -> int:
    """Parameters of a CLIP text encoder."""
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    layer = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    embedded = int(config.get("vocab_size", _VOCABULARY)) + int(config.get("max_position_embeddings", 77))
    return embedded * width + int(config["num_hidden_layers"]) * layer + 2 * width


def _encoder_weights(places: Iterable[Path]) -> float:
    """Of the student's text encoders in float32, as training holds them; nothing for what is not on this machine."""
    folders = [Path(place) for place in places if isinstance(place, Path) and place.is_dir()]
    tensors = [(name, tensor) for folder in folders for name, tensor in stored_tensors(folder).items()]
    return float(sum(_numel(tensor.shape) for name, tensor in tensors if not LEFT_OUT.search(name)) * _FLOAT32_BYTES)


def _adapter_bytes(config: Config, models: Models) -> float:
    """In float32; as if the text encoder were as wide as the adapter."""
    hidden, width = config.student.adapter.hidden_size, int(models.unet["cross_attention_dim"])
    pooled = pooled_dim_of(models.unet)
    last = width if pooled is None else pooled
    numel = (
        hidden * hidden * config.student.adapter.num_layers + hidden * last + (0 if pooled is None else last * width)
    )
    return float(numel * _FLOAT32_BYTES)


def _numel(shape: Iterable[int]) -> int:
    count = 1
    for side in shape:
        count *= int(side)
    return count


def _bytes_of(dtype: str) -> int:
    kind: torch.dtype = getattr(torch, dtype)
    return kind.itemsize
