"""The frozen cross-attention layers alone, and how far the student's text is from the English one in their eyes.

Text enters a UNet at the keys and values of its cross-attention layers and, in SDXL, at the pooled embedding inside the
time embedding. So an adapter can be trained on the teacher's cached queries without a pass of the UNet. It is a
surrogate of the distillation loss: each layer is matched at the teacher's inputs, not at the student's.

Shapes: B records, Q queries, L tokens, D width of the text states, C width of a layer, P width of the pooled embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import Timesteps
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from pea.adapter import pooled_dim_of
from pea.encoders import Conditioning
from pea.errors import CheckpointError
from pea.teacher import Blocks, layer_names, unet_config

_TINY = 1e-12


@dataclass(frozen=True)
class AttentionLosses:
    """Errors of one batch, relative to the power of what the English text gives."""

    total: Tensor
    """Scalar: weighted mean over the layers, plus the pooled term."""
    layers: Tensor
    """Scalar: weighted mean of the layers' errors."""
    pooled: Tensor | None
    """Scalar; None without a pooled embedding."""

    def report(self) -> dict[str, Tensor]:
        """Detached values by name, for a log."""
        values = {"loss": self.total, "attention": self.layers}
        if self.pooled is not None:
            values["pooled"] = self.pooled
        return {name: value.detach() for name, value in values.items()}


class CrossAttention(nn.Module):
    """`to_out(softmax(q K(text)ᵀ / √d) V(text))` of one frozen layer."""

    def __init__(self, num_heads: int, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.num_heads = num_heads
        for name in ("to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"):
            self.register_buffer(name.replace(".", "_"), tensors[name])
        self.to_k_weight: Tensor
        self.to_v_weight: Tensor
        self.to_out_0_weight: Tensor
        self.to_out_0_bias: Tensor

    def forward(self, queries: Tensor, text: Tensor) -> Tensor:
        """Queries float `[B, Q, C]`, text states float `[B, L, D]` -> output float `[B, Q, C]`."""
        query = self._heads(queries.to(self.to_k_weight.dtype))
        text = text.to(self.to_k_weight.dtype)
        key = self._heads(functional.linear(text, self.to_k_weight))
        value = self._heads(functional.linear(text, self.to_v_weight))
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return functional.linear(mixed, self.to_out_0_weight, self.to_out_0_bias)

    def _heads(self, states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:2], self.num_heads, -1).transpose(1, 2)


class PooledEmbedding(nn.Module):
    """What SDXL adds to its time embedding: an MLP of the pooled text embedding and the image's sizes."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """`config`: the UNet's."""
        super().__init__()
        self.sizes = Timesteps(int(config["addition_time_embed_dim"]), config["flip_sin_to_cos"], config["freq_shift"])
        for name in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"):
            self.register_buffer(name.replace(".", "_"), tensors[name])
        self.linear_1_weight: Tensor
        self.linear_1_bias: Tensor
        self.linear_2_weight: Tensor
        self.linear_2_bias: Tensor

    def forward(self, pooled: Tensor, time_ids: Tensor) -> Tensor:
        """Pooled float `[B, P]`, `time_ids` int `[B, 6]` -> float `[B, width of the time embedding]`."""
        sizes = self.sizes(time_ids.flatten())
        dtype = self.linear_1_weight.dtype
        both = torch.cat([pooled.to(dtype), sizes.reshape(len(pooled), -1).to(dtype)], dim=-1)
        hidden = functional.silu(functional.linear(both, self.linear_1_weight, self.linear_1_bias))
        return functional.linear(hidden, self.linear_2_weight, self.linear_2_bias)


class AttentionLayers(nn.Module):
    """All frozen layers that cached queries are put to."""

    def __init__(self, layers: Mapping[str, CrossAttention], pooled: PooledEmbedding | None) -> None:
        super().__init__()
        self.names = tuple(layers)
        self.layers = nn.ModuleList(layers.values())
        self.pooled = pooled

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path,
        layers: Blocks = "all",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> AttentionLayers:
        """Read only `to_k`, `to_v`, `to_out` of the layers (SDXL: and `add_embedding`) from `<folder>/unet`.

        Raises:
            CheckpointError: there is no UNet, or its cross-attention is of a kind that is not supported.
            ConfigError: a layer does not exist.
        """
        config = unet_config(folder)
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(dict(config))
        names = layer_names(unet, layers)
        for name in names:
            _check_plain(unet.get_submodule(name), f"{folder / 'unet'}, {name}")
        reader = _Tensors(folder / "unet", dtype, device)
        attention = {}
        for name in names:
            wanted = ("to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
            heads: Any = unet.get_submodule(name).heads
            attention[name] = CrossAttention(int(heads), reader.take(name, wanted))
        pooled = None
        if pooled_dim_of(config) is not None:
            wanted = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")
            pooled = PooledEmbedding(config, reader.take("add_embedding", wanted))
        return cls(attention, pooled)

    def forward(self, queries: Mapping[str, Tensor], text: Tensor) -> dict[str, Tensor]:
        """Layer -> its output `[B, Q, C]` for the queries given, with text states `[B, L, D]`."""
        return {
            name: layer(queries[name], text)
            for name, layer in zip(self.names, self.layers, strict=True)
            if name in queries
        }

    def losses(
        self,
        queries: Mapping[str, Tensor],
        student: Conditioning,
        english: Conditioning,
        time_ids: Tensor,
        layer_weights: Mapping[str, float] | None = None,
        pooled_weight: float = 1.0,
    ) -> AttentionLosses:
        """How differently the layers answer the same queries, each relative to its answers' power in this batch.

        `layer_weights`: layer -> factor, 1 where absent. Gradients flow to the student's conditioning only.
        """
        with torch.no_grad():
            wanted = self(queries, english.encoder_hidden_states)
        given = self(queries, student.encoder_hidden_states)
        factors = {name: (layer_weights or {}).get(name, 1.0) for name in given}
        errors = [factor * relative_error(given[name], wanted[name]) for name, factor in factors.items()]
        layers = torch.stack(errors).sum() / max(sum(factors.values()), _TINY)
        if self.pooled is None:
            return AttentionLosses(layers, layers, None)
        assert student.pooled_prompt_embeds is not None and english.pooled_prompt_embeds is not None
        with torch.no_grad():
            target = self.pooled(english.pooled_prompt_embeds, time_ids)
        pooled = relative_error(self.pooled(student.pooled_prompt_embeds, time_ids), target)
        return AttentionLosses(layers + pooled_weight * pooled, layers, pooled)


def relative_error(given: Tensor, wanted: Tensor) -> Tensor:
    """Squared error over the mean square of what is wanted, as a float32 scalar."""
    given, wanted = given.float(), wanted.float()
    return (given - wanted).square().mean() / wanted.square().mean().clamp(min=_TINY)


class _Tensors:
    """Chosen tensors of a folder of safetensors, whole or in pieces; the others are never read."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device | str) -> None:
        self.folder, self.dtype, self.device = folder, dtype, str(device)
        indices = sorted(folder.glob("*.safetensors.index*.json"))
        self.files: dict[str, Path] = {}
        try:
            if indices:
                weights = json.loads(indices[0].read_text("utf-8"))["weight_map"]
                self.files = {name: folder / file for name, file in weights.items()}
                return
            plain = sorted(folder.glob("*model.safetensors")) or sorted(folder.glob("*.fp16.safetensors"))
            if plain:
                with safe_open(plain[0], "pt") as file:
                    self.files = dict.fromkeys(file.keys(), plain[0])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError("cannot read the UNet's weights", where=folder, got=error) from error

    def take(self, module: str, names: Sequence[str]) -> dict[str, Tensor]:
        """Parameters of one module by their names inside it."""
        taken = {}
        for name in names:
            path = self.files.get(f"{module}.{name}")
            if path is None:
                raise CheckpointError("the UNet lacks a tensor", where=self.folder, expected=f"{module}.{name}")
            try:
                with safe_open(path, "pt") as file:
                    taken[name] = file.get_tensor(f"{module}.{name}").to(self.device, self.dtype)
            except (OSError, SafetensorError) as error:
                raise CheckpointError("cannot read the UNet's weights", where=path, got=error) from error
        return taken


def _check_plain(layer: Any, where: str) -> None:
    """Refuse what the plain formula of a layer does not cover."""
    extras = ("norm_q", "norm_k", "norm_cross", "group_norm", "spatial_norm", "add_k_proj", "to_out_context")
    found = [name for name in extras if getattr(layer, name, None)]
    found += ["bias of to_k"] if layer.to_k.bias is not None else []
    if found:
        raise CheckpointError(
            "cross-attention of an unsupported kind", where=where, expected="plain attention", got=", ".join(found)
        )
