"""A diffusers pipeline that reads native prompts: its `encode_prompt`, and nothing else of it, is replaced.

Every pipeline of SD1.5 and SDXL calls `self.encode_prompt` with what the user gave and draws with what that returns, so
that guidance, several images a prompt, ControlNet, LoRA and schedulers stay the pipeline's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Protocol

import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from torch import Tensor, nn

from pea.errors import CheckpointError, warn
from pea.models.adapter import PEA
from pea.models.unet_values import told_apart

_METHOD = "encode_prompt"
_NEEDED = {"prompt", "num_images_per_prompt", "do_classifier_free_guidance", "negative_prompt", "prompt_embeds"}
_RETURNED = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
"""In this order; SD1.5 has the first two."""
_WITHOUT_EFFECT = ("clip_skip",)


class Prompter(Protocol):
    """What is attached."""

    adapter: PEA

    @property
    def dtype(self) -> torch.dtype:
        """The embeddings' type."""

    @property
    def device(self) -> torch.device:
        """Where its models are."""

    def to(self, device: Any = None, dtype: Any = None) -> Any:
        """Move them."""

    def __call__(self, prompt: Any, negative_prompt: Any = None, *, zero_negative: bool = False) -> dict[str, Tensor]:
        """Embeddings by their names in a pipeline."""


def attach_to(pipe: Any, pea: Prompter, *, zero_negative: bool) -> None:
    """Replace how `pipe` encodes prompts; embeddings that are given to it, prompt's and negative one's, pass as ever.

    Warns of a UNet that is not the one that the adapter was trained for, where the adapter can tell.

    Raises:
        CheckpointError: it is no pipeline of a diffusion model that the adapter is for.
    """
    detach_from(pipe, None)
    _check(pipe, pea.adapter)
    if zero_negative and pea.adapter.config.pooled_dim is None:
        raise CheckpointError(
            "SD1.5 has no zero negative", where=type(pipe).__name__, remedy="Leave zero_negative out."
        )
    setattr(pipe, _METHOD, _NativePrompts(pipe, pea, zero_negative=zero_negative))


class _NativePrompts:
    """What stands in the place of a pipe's `encode_prompt`; a copy of the pipe gets one of its own."""

    def __init__(self, pipe: Any, pea: Prompter, *, zero_negative: bool) -> None:
        self.pipe, self.pea, self.zero_negative = pipe, pea, zero_negative

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        encode_english = getattr(type(self.pipe), _METHOD)
        bound = inspect.signature(encode_english).bind(self.pipe, *arguments, **named)
        bound.apply_defaults()
        given = bound.arguments
        if given["prompt"] is None or given["prompt_embeds"] is not None:
            _check_both(given, zero_negative=self.zero_negative)
            return encode_english(self.pipe, *arguments, **named)
        return _encode(self.pipe, self.pea, given, zero_negative=self.zero_negative)

    def __deepcopy__(self, memo: dict[int, Any]) -> _NativePrompts:
        return _NativePrompts(deepcopy(self.pipe, memo), self.pea, zero_negative=self.zero_negative)


def detach_from(pipe: Any, pea: Prompter | None) -> None:
    """Give a pipe its own method back, where `pea` (None: any) is attached to it."""
    attached = getattr(vars(pipe).get(_METHOD), "pea", None) if hasattr(pipe, "__dict__") else None
    if attached is not None and pea in (None, attached):
        delattr(pipe, _METHOD)


def _check(pipe: Any, adapter: PEA) -> None:
    unet, method = getattr(pipe, "unet", None), getattr(pipe, _METHOD, None)
    parameters = inspect.signature(method).parameters.keys() if method else set()
    if unet is None or not parameters >= _NEEDED:
        raise CheckpointError(
            "not a pipeline that an adapter can be attached to",
            expected="one of Stable Diffusion 1.5 or XL with encode_prompt",
            got=type(pipe).__name__,
            remedy="Where it takes prompt_embeds, give it those: pipe(**pea(prompt)).",
        )
    predicts = getattr(pipe.scheduler.config, "prediction_type", None)
    adapter.check_base(unet.config, type(pipe).__name__, predicts)
    base = adapter.config.base_model or {}
    if said := told_apart(base.get("values") or {}, unet, base.get("name")):
        warn(f"{type(pipe).__name__}: {said}")


def _encode(pipe: Any, pea: Prompter, given: Mapping[str, Any], *, zero_negative: bool) -> tuple[Tensor | None, ...]:
    """What the pipeline's own method returns, of native prompts."""
    _check_words(given)
    guided = given["do_classifier_free_guidance"] and given.get("negative_prompt_embeds") is None
    negative = given["negative_prompt"] if guided else None
    device = torch.device(given.get("device") or pipe._execution_device)  # noqa: SLF001 - as in every pipeline of diffusers
    found = _on_device(pipe, pea, device, given["prompt"], negative, zero_negative=zero_negative and guided)
    _check_negative(given.get("negative_prompt_embeds"), found["prompt_embeds"])
    dtype, count = pipe.unet.dtype, given["num_images_per_prompt"]

    def row_for_each_image(name: str) -> Tensor | None:
        if name.startswith("negative_") and not given["do_classifier_free_guidance"]:
            return None
        tensor = given.get(name)
        tensor = found[name] if tensor is None else tensor
        return tensor.to(device, dtype).repeat_interleave(count, dim=0)

    return tuple(row_for_each_image(name) for name in _RETURNED if name in found)


def _check_both(given: Mapping[str, Any], *, zero_negative: bool) -> None:
    """Embeddings pass; but what they are drawn against would be read by the English encoder, whatever it is in."""
    is_zero = zero_negative and given["negative_prompt"] is None
    if given["do_classifier_free_guidance"] and given.get("negative_prompt_embeds") is None and not is_zero:
        raise CheckpointError(
            "prompt_embeds without negative_prompt_embeds, in a pipe that an adapter is attached to",
            expected="both, as pea(prompt, negative_prompt) gives them",
            got=given["negative_prompt"],
            remedy="Give both, or the prompt as text, or call pea.detach(pipe) before.",
        )


def _check_words(given: Mapping[str, Any]) -> None:
    """An adapter has one conditioning: a second prompt for the second English encoder has no place in it."""
    for name in ("prompt", "negative_prompt"):
        second = given.get(f"{name}_2")
        if second and second != given[name]:  # as in the pipelines, an empty one is none
            raise CheckpointError(
                f"{name}_2 has no meaning with an adapter", got=second, remedy=f"Put everything into {name}."
            )
    for name in _WITHOUT_EFFECT:
        if given.get(name) is not None:
            warn(f"{name} has no effect on native prompts")


def _check_negative(negative: Tensor | None, prompt: Tensor) -> None:
    """Negative embeddings that are given by hand, English ones perhaps, must stand beside native ones."""
    if negative is not None and negative.shape != prompt.shape:
        raise CheckpointError(
            "negative_prompt_embeds of another shape than the prompt's embeddings",
            expected=list(prompt.shape),
            got=list(negative.shape),
            remedy="Give negative_prompt, or embeddings of the same adapter: pea(negative)['prompt_embeds'].",
        )


def _on_device(
    pipe: Any, pea: Prompter, device: torch.device, prompt: Any, negative: Any, *, zero_negative: bool
) -> dict[str, Tensor]:
    """Embeddings, made on the pipe's device in its UNet's type; where the pipe is offloaded, the models go back."""
    former_device, former_dtype = pea.device, pea.dtype
    try:
        return pea.to(device, pipe.unet.dtype)(prompt, negative, zero_negative=zero_negative)  # type: ignore[no-any-return]
    finally:
        pea.to(former_device if _is_offloaded(pipe) else None, former_dtype)


def _is_offloaded(pipe: Any) -> bool:
    """Whether accelerate brings the models to the device one after the other, or diffusers does groups of layers."""
    models = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return any(hasattr(module, "_hf_hook") or _is_group_offload_enabled(module) for module in models)
