"""Bytes of frozen models' weights and of what their passes hold at a time, from configurations alone.

A pass is run on tensors without content (PyTorch's fake tensors, which have shapes and types and take no room), with
the kernels of a CPU, whose attention keeps no table of all pairs of positions; nor does that of a GPU. Counted are the
tensors that live at the same time. Models are given by their configurations as JSON.

Shapes: latents (c, h, w), an image (height, width) px.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pea.models.conditioning import Conditioning
from pea.models.teacher_parts import pooled_dim_of
from pea.models.unet import Teacher


@cache
def unet_weights(unet: str, dtype: str) -> float:
    """Of all of a UNet's parameters."""
    with _without_content(dtype):
        return _parameter_bytes(_unet(unet))


@cache
def vae_weights(vae: str, dtype: str) -> float:
    """Of all of a VAE's parameters."""
    with _without_content(dtype):
        return _parameter_bytes(AutoencoderKL.from_config(json.loads(vae)))


@cache
def layer_weights(unet: str, dtype: str) -> float:
    """Of the frozen cross-attention layers, but for the matrices of the queries, and of the pooled embedding's."""
    with _without_content(dtype):
        named = _unet(unet).named_parameters()
        read = [
            each for name, each in named if (".attn2." in name and ".to_q." not in name) or "add_embedding." in name
        ]
        return float(sum(each.numel() * each.element_size() for each in read))


@cache
def forward_bytes(unet: str, latent: tuple[int, int, int], num_tokens: int, dtype: str) -> float:
    """Of the teacher's pass over one record, its features kept."""
    with _without_content(dtype), torch.no_grad():
        teacher = Teacher(_unet(unet), DDPMScheduler())
        arguments = _arguments(json.loads(unet), latent, num_tokens)
        return peak_bytes(lambda: teacher.forward(*arguments), teacher.unet)


@cache
def step_bytes(
    unet: str, latent: tuple[int, int, int], num_tokens: int, dtype: str, checkpointing: bool, on_cpu: bool
) -> float:
    """Of the student's pass over one row, and back to the text; under autocast where the type is not float32."""
    with _without_content(dtype):
        teacher = Teacher(_unet(unet), DDPMScheduler())
        if dtype != "float32" and not on_cpu:
            normalise_in_float32(teacher.unet)
        if checkpointing:
            teacher.recompute_activations()
        latents, timesteps, conditioning, time_ids = _arguments(json.loads(unet), latent, num_tokens)
        conditioning.encoder_hidden_states.requires_grad_(True)

        def act() -> None:
            with torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32"):
                output = teacher.forward(latents, timesteps, conditioning, time_ids)
            losses = [each.float().square().mean() for each in (output.noise_pred, *output.features.values())]
            torch.stack([each for each in losses if each.requires_grad]).sum().backward()  # type: ignore[no-untyped-call]

        return peak_bytes(act, teacher.unet)


def normalise_in_float32(model: nn.Module) -> None:
    """Let norms take and give float32, as autocast has them do on a GPU and not on a CPU.

    Source: PyTorch, Automatic Mixed Precision, "CUDA Ops that can autocast to float32": group_norm, layer_norm.
    """
    for module in model.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            for name, own in list(module.named_parameters()):
                setattr(module, name, nn.Parameter(own.detach().float(), requires_grad=False))
            module.forward = _of_float32(module.forward)  # type: ignore[assignment]


def _of_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda values: forward(values.float())


@cache
def encode_bytes(vae: str, image: tuple[int, ...], dtype: str) -> float:
    """Of the VAE's pass over one image."""
    with _without_content(dtype), torch.no_grad():
        model = AutoencoderKL.from_config(json.loads(vae)).eval()
        pixels = torch.zeros(1, 3, *image)
        return peak_bytes(lambda: model.encode(pixels), model)


@cache
def decode_bytes(vae: str, latent: tuple[int, int, int], dtype: str) -> float:
    """Of the VAE's pass from the latents of one image."""
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
