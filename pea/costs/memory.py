"""Memory that each kind of work needs at most, from configurations alone: weights, and what a pass holds at a time.

A pass is run on tensors without content (PyTorch's fake tensors, which have shapes and types and take no room), with
the kernels of a CPU, whose attention keeps no table of all pairs of positions; nor does that of a GPU. Counted are the
tensors that live at the same time. Not counted: what kernels take for themselves, the allocator's gaps, the program and
its libraries, and on a GPU the driver's own share.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pea.collect.layout import BucketLayout
from pea.config import Config
from pea.costs.caching import Models, sizes
from pea.models.conditioning import Conditioning
from pea.models.teacher_parts import own_size, pooled_dim_of, vae_dtype
from pea.models.tensor_files import LEFT_OUT, stored_tensors
from pea.models.unet import Teacher
from pea.models.vae import images_per_pass

_VOCABULARY = 49408
"""Of CLIP. Source: transformers `CLIPTextConfig`."""
_FLOAT32_BYTES = 4
_BATCHES_AT_ONCE = 2  # of the caching stage on a GPU
_BATCHES_KEPT = 4  # answered, waiting to be written, and being written
_ADAM = 4  # parameters, gradients, and two moments
PRECISIONS = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Type that the student's UNet has in a run of this precision."""


def memory_needs(config: Config, models: Models, layout: BucketLayout, num_samples: int) -> dict[str, float]:
    """Kind of work -> most bytes held at a time: ``caching``, ``training`` (a UNet step), ``attention``, ``drawing``.

    ``layout``: of the bucket that stands for all; ``num_samples``: of one tar, where that is less than a batch.
    ``attention`` is there where the cache keeps queries. Weights of the student's encoder count where its folder is
    there. Drawing is of one image at the UNet's own size, with guidance, in float32.
    """
    dtype = config.teacher.dtype
    batch = min(config.cache.run.batch_size, num_samples)
    at_once = min(_BATCHES_AT_ONCE, -(-num_samples // batch))
    image = tuple(side * 2 ** (len(models.vae["block_out_channels"]) - 1) for side in layout.latent_shape[1:])
    vae_type, unet, vae = vae_dtype(models.vae, dtype), json.dumps(dict(models.unet)), json.dumps(dict(models.vae))
    latent, tokens = layout.latent_shape, models.num_tokens
    size = sizes(layout)
    rows = batch * (size.sample + config.cache.draws_per_sample * size.record)
    widest = max((_numel(shape) for shape in layout.feature_shapes.values()), default=0) * 2 * _FLOAT32_BYTES * batch
    passes = (
        batch * _forward_bytes(unet, latent, tokens, dtype) + widest,
        min(batch, images_per_pass(image, on_cpu=config.cache.run.device == "cpu"))
        * _encode_bytes(vae, image, vae_type),
    )
    caching = _weights(models, dtype, vae_type) + at_once * max(passes) + _BATCHES_KEPT * rows
    train = config.train.all_phases[-1].train
    precision = PRECISIONS[train.precision]
    encoder, adapter = _encoder_weights(config.student.places), _adapter_bytes(config, models)
    student = encoder + _ADAM * adapter
    step = _step_bytes(unet, latent, tokens, precision, train.gradient_checkpointing)
    needs = {
        "caching": caching,
        "training": _unet_weights(unet, precision) + student + train.batch_size * step,
        "drawing": encoder + adapter + _drawing(unet, vae, latent, tokens, models),
    }
    if layout.queries is not None:
        english = sum(map(_text_numel, models.text)) * _bytes_of(dtype)  # asked for the empty caption before the start
        needs["attention"] = _layer_weights(unet, precision) + max(english, student)
    return needs


def _drawing(unet: str, vae: str, latent: tuple[int, int, int], tokens: int, models: Models) -> float:
    own = (latent[0], *own_size(models.unet))
    passes = (2 * _forward_bytes(unet, own, tokens, "float32"), _decode_bytes(vae, own, "float32"))
    return _unet_weights(unet, "float32") + _vae_weights(vae, "float32") + max(passes)


def _weights(models: Models, dtype: str, vae_type: str) -> float:
    """Of VAE, English encoders and UNet."""
    text = sum(map(_text_numel, models.text)) * _bytes_of(dtype)
    unet, vae = json.dumps(dict(models.unet)), json.dumps(dict(models.vae))
    return _unet_weights(unet, dtype) + _vae_weights(vae, vae_type) + text


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


@cache
def _unet_weights(unet: str, dtype: str) -> float:
    with _without_content(dtype):
        return _parameter_bytes(_unet(unet))


@cache
def _vae_weights(vae: str, dtype: str) -> float:
    with _without_content(dtype):
        return _parameter_bytes(AutoencoderKL.from_config(json.loads(vae)))


@cache
def _layer_weights(unet: str, dtype: str) -> float:
    """Of the frozen cross-attention layers, but for the matrices of the queries, and of the pooled embedding's."""
    with _without_content(dtype):
        named = _unet(unet).named_parameters()
        read = [
            each for name, each in named if (".attn2." in name and ".to_q." not in name) or "add_embedding." in name
        ]
        return float(sum(each.numel() * each.element_size() for each in read))


@cache
def _forward_bytes(unet: str, latent: tuple[int, int, int], num_tokens: int, dtype: str) -> float:
    """Of the teacher's pass over one record, its features kept."""
    with _without_content(dtype), torch.no_grad():
        teacher = Teacher(_unet(unet), DDPMScheduler())
        arguments = _arguments(json.loads(unet), latent, num_tokens)
        return peak_bytes(lambda: teacher.forward(*arguments), teacher.unet)


@cache
def _step_bytes(unet: str, latent: tuple[int, int, int], num_tokens: int, dtype: str, checkpointing: bool) -> float:
    """Of the student's pass over one row, and back to the text."""
    with _without_content(dtype):
        teacher = Teacher(_unet(unet), DDPMScheduler())
        if checkpointing:
            teacher.recompute_activations()
        latents, timesteps, conditioning, time_ids = _arguments(json.loads(unet), latent, num_tokens)
        conditioning.encoder_hidden_states.requires_grad_(True)

        def act() -> None:
            output = teacher.forward(latents, timesteps, conditioning, time_ids)
            losses = [each.float().square().mean() for each in (output.noise_pred, *output.features.values())]
            torch.stack([each for each in losses if each.requires_grad]).sum().backward()  # type: ignore[no-untyped-call]

        return peak_bytes(act, teacher.unet)


@cache
def _encode_bytes(vae: str, image: tuple[int, ...], dtype: str) -> float:
    """Of the VAE's pass over one image."""
    with _without_content(dtype), torch.no_grad():
        model = AutoencoderKL.from_config(json.loads(vae)).eval()
        pixels = torch.zeros(1, 3, *image)
        return peak_bytes(lambda: model.encode(pixels), model)


@cache
def _decode_bytes(vae: str, latent: tuple[int, int, int], dtype: str) -> float:
    with _without_content(dtype), torch.no_grad():
        model = AutoencoderKL.from_config(json.loads(vae)).eval()
        latents = torch.zeros(1, *latent)
        return peak_bytes(lambda: model.decode(latents), model)


def _unet(config: str) -> Any:
    return UNet2DConditionModel.from_config(json.loads(config)).requires_grad_(False).eval()


def _parameter_bytes(model: nn.Module) -> float:
    return float(sum(each.numel() * each.element_size() for each in model.parameters()))


def _arguments(
    unet: Mapping[str, Any], latent: tuple[int, int, int], num_tokens: int
) -> tuple[Tensor, Tensor, Conditioning, Tensor | None]:
    """One row for the UNet, in the default type."""
    pooled = pooled_dim_of(unet)
    conditioning = Conditioning(
        torch.zeros(1, num_tokens, int(unet["cross_attention_dim"])), None if pooled is None else torch.zeros(1, pooled)
    )
    time_ids = None if pooled is None else torch.zeros(1, 6, dtype=torch.int64)
    return torch.zeros(1, *latent), torch.zeros(1, dtype=torch.int64), conditioning, time_ids


@contextmanager
def _without_content(dtype: str) -> Iterator[None]:
    """Tensors that are made within have no content, and this type by default."""
    before = torch.get_default_dtype()
    with FakeTensorMode(), torch.device("cpu"):
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def peak_bytes(act: Callable[[], object], model: nn.Module) -> float:
    """Most bytes that the tensors made by ``act`` hold at a time; the model's own do not count."""
    with _LiveTensors(model) as live:
        result = act()
    del result
    return float(live.peak)


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that live; each is counted once, whatever looks into it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now, self.peak = 0, 0
        self._own = [each.untyped_storage() for each in (*model.parameters(), *model.buffers())]
        self._counted = {id(each): 0 for each in self._own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if id(storage) in self._counted:
            return
        self._counted[id(storage)] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, number: int) -> None:
        self._now -= self._counted.pop(number)
