"""The frozen cross-attention layers alone, and how far the student's text is from the English one in their eyes.

Text enters a UNet at the keys and values of its cross-attention layers and, in SDXL, at the pooled embedding inside the
time embedding. So an adapter can be trained on the teacher's cached queries without a pass of the UNet. It is a
surrogate of the distillation loss: each layer is matched at the teacher's inputs, not at the student's.

Shapes: B records, R of them that keep a layer, Q queries, L tokens, D width of the text states, C width of a layer,
P width of the pooled embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor, nn
from torch.nn import functional

from pea.attention.queries import AttentionTargets, LayerQueries
from pea.errors import CheckpointError, ConfigError
from pea.models.conditioning import Conditioning
from pea.models.teacher_parts import pooled_dim_of
from pea.models.unet import Blocks, layer_names, unet_config
from pea.models.unet_shapes import unet_on_meta
from pea.models.weight_files import WeightFiles

Take = Callable[[str, Sequence[str]], Mapping[str, Tensor]]
_TINY = 1e-12
MAX_POWER_BATCHES = 8
_ATTENTION_TENSORS = ("to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
_POOLED_TENSORS = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")


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


@dataclass(frozen=True)
class Powers:
    """Mean squares of the frozen parts' answers to English text."""

    layers: dict[str, float]
    """Cross-attention layer -> of its output."""
    pooled: float = 1.0
    """Of the pooled embedding's part of the time embedding."""


class CrossAttention(nn.Module):
    """`to_out(softmax(q K(text)ᵀ / √d) V(text))` of one frozen layer."""

    def __init__(self, num_heads: int, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.num_heads = num_heads
        for name in _ATTENTION_TENSORS:
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
        for name in _POOLED_TENSORS:
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
        return cls.assemble(unet_config(folder), WeightFiles(folder / "unet", dtype, device).take, layers)

    @classmethod
    def assemble(cls, config: Mapping[str, Any], take: Take, layers: Blocks = "all") -> AttentionLayers:
        """From a UNet's configuration; `take(module path, names)` gives a module's parameters by name.

        Raises:
            CheckpointError: the cross-attention is of a kind that is not supported.
            ConfigError: a layer does not exist.
        """
        unet = unet_on_meta(config)
        attention = {}
        for name in layer_names(unet, layers):
            layer: Any = unet.get_submodule(name)
            _check_plain(layer, name)
            attention[name] = CrossAttention(int(layer.heads), take(name, _ATTENTION_TENSORS))
        if pooled_dim_of(config) is None:
            return cls(attention, None)
        return cls(attention, PooledEmbedding(unet.config, take("add_embedding", _POOLED_TENSORS)))

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Refuse weights that cannot be used.

        Raises:
            ConfigError: there is no such layer, or none has a weight.
        """
        unknown = sorted(set(weights) - set(self.names))
        if unknown or not any(weights.get(name, 1.0) for name in self.names):
            raise ConfigError(
                "no such cross-attention layer" if unknown else "every cross-attention layer is left out",
                where="train.attention_layer_weights",
                expected=", ".join(self.names),
                got=", ".join(unknown) if unknown else "weights of 0",
            )

    def forward(self, queries: Mapping[str, LayerQueries], text: Tensor) -> dict[str, Tensor]:
        """Layer -> its output `[R, Q, C]` for the queries given, with the text states `[B, L, D]` of all records."""
        answers = {}
        for name, layer in zip(self.names, self.layers, strict=True):
            if name in queries:
                rows, asked, _ = queries[name]
                answers[name] = layer(asked, text if len(rows) == len(text) else text[rows])
        return answers

    @torch.no_grad()
    def powers(self, targets: AttentionTargets) -> Powers:
        """Mean squares of what the English text gives, the scale of the losses; taken once, from a few records."""
        english = targets.english
        answers = self(targets.queries, english.encoder_hidden_states)
        layers = {name: _mean_square(answer) for name, answer in answers.items()}
        if self.pooled is None or english.pooled_prompt_embeds is None:
            return Powers(layers)
        return Powers(layers, _mean_square(self.pooled(english.pooled_prompt_embeds, targets.time_ids)))

    def first_powers(self, batch: Callable[[int], AttentionTargets]) -> Powers:
        """The powers of each layer in the first batches of a run, `batch(0)`, `batch(1)`, ...

        One is enough where every record keeps every layer; more are asked for until each layer was met.
        """
        layers, pooled = dict[str, float](), 1.0
        for index in range(MAX_POWER_BATCHES):
            found = self.powers(batch(index))
            layers, pooled = found.layers | layers, found.pooled if index == 0 else pooled
            if len(layers) == len(self.names):
                break
        return Powers(layers, pooled)

    def losses(
        self,
        targets: AttentionTargets,
        student: Conditioning,
        powers: Powers,
        layer_weights: Mapping[str, float] | None = None,
        pooled_weight: float = 1.0,
    ) -> AttentionLosses:
        """How differently the layers answer the same queries, each relative to `powers`.

        Where a record keeps a random few of the layers, the errors are divided by a layer's share of the records, so
        that their expectation is the loss over all layers. A layer without a power is left out. Gradients flow to the
        student's conditioning only. `layer_weights`: layer -> factor, 1 where absent.
        """
        queries, english, time_ids = targets.queries, targets.english, targets.time_ids
        factors = {name: (layer_weights or {}).get(name, 1.0) for name in self.names if name in powers.layers}
        asked = {name: queries[name] for name, factor in factors.items() if name in queries and factor > 0}
        with torch.no_grad():
            wanted = self(asked, english.encoder_hidden_states)
        given = self(asked, student.encoder_hidden_states)
        layers = student.encoder_hidden_states.new_zeros((), dtype=torch.float32)
        for name, answer in given.items():
            errors = (answer.float() - wanted[name].float()).square().mean((1, 2)) / powers.layers[name]
            layers = layers + factors[name] * errors.sum() / (len(time_ids) * asked[name].share)
        layers = layers / max(sum(factors.values()), _TINY)
        if self.pooled is None:
            return AttentionLosses(layers, layers, None)
        assert student.pooled_prompt_embeds is not None and english.pooled_prompt_embeds is not None
        with torch.no_grad():
            target = self.pooled(english.pooled_prompt_embeds, time_ids).float()
        error = self.pooled(student.pooled_prompt_embeds, time_ids).float() - target
        pooled = error.square().mean() / powers.pooled
        return AttentionLosses(layers + pooled_weight * pooled, layers, pooled)


def _mean_square(values: Tensor) -> float:
    return max(float(values.float().square().mean()), _TINY)


def _check_plain(layer: Any, where: str) -> None:
    """Refuse what the plain formula of a layer does not cover."""
    extras = ("norm_q", "norm_k", "norm_cross", "group_norm", "spatial_norm", "add_k_proj", "to_out_context")
    found = [name for name in extras if getattr(layer, name, None)]
    found += ["bias of to_k"] if layer.to_k.bias is not None else []
    if found:
        raise CheckpointError(
            "cross-attention of an unsupported kind", where=where, expected="plain attention", got=", ".join(found)
        )
