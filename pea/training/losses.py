"""The losses of the method: pure functions of per-row distances.

`L = λ_L · KD(noise_pred) + λ_FL · Σ_blocks w_b · KD(feature_b) + λ_SD · SD + λ_T · KD(text) + λ_A · KD(attention)`,
each term the mean over the *whole* batch of what its own rows contribute: distillation on the parallel rows, the
diffusion loss on the culture rows.

Source: arXiv 2311.17086, equations 3 to 6; the whole-batch mean as in the original training code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pea.models.conditioning import Conditioning


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms; a block that is absent from `blocks` has factor 1."""

    noise_pred: float = 1.0
    features: float = 0.1
    blocks: Mapping[str, float] = field(default_factory=dict)
    diffusion: float = 1.0
    text: float = 0.0
    attention: float = 0.0


@dataclass(frozen=True)
class Losses:
    """Scalars: the total to differentiate, and its unweighted terms."""

    total: Tensor
    noise_pred: Tensor
    blocks: dict[str, Tensor]
    diffusion: Tensor
    text: Tensor | None = None
    attention: Tensor | None = None

    def report(self) -> dict[str, Tensor]:
        """Every term for a log, detached and on its device: reading a number would wait for the device."""
        features = torch.stack(list(self.blocks.values())).sum() if self.blocks else torch.zeros_like(self.total)
        terms = {"loss": self.total, "noise_pred": self.noise_pred, "diffusion": self.diffusion, "features": features}
        terms |= {f"features/{name}": value for name, value in self.blocks.items()}
        terms |= {} if self.text is None else {"text": self.text}
        terms |= {} if self.attention is None else {"attention": self.attention}
        return {name: value.detach().float() for name, value in terms.items()}


def joined(groups: Sequence[tuple[Losses, int]]) -> Losses:
    """The losses of a batch from those of its groups of rows, each with its number of rows; detached."""
    num_rows = sum(count for _, count in groups)

    def mean(terms: Sequence[Tensor]) -> Tensor:
        return sum(
            (term.detach() * (count / num_rows) for term, (_, count) in zip(terms, groups, strict=True)),
            start=terms[0].new_zeros(()),
        )

    parts = [losses for losses, _ in groups]
    texts = [losses.text for losses in parts if losses.text is not None]
    attention = [losses.attention for losses in parts if losses.attention is not None]
    return Losses(
        mean([losses.total for losses in parts]),
        mean([losses.noise_pred for losses in parts]),
        {name: mean([losses.blocks[name] for losses in parts]) for name in parts[0].blocks},
        mean([losses.diffusion for losses in parts]),
        mean(texts) if texts else None,
        mean(attention) if attention else None,
    )


def row_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row, float32 `[B]`, of two tensors `[B, ...]`."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def text_distance(student: Conditioning, teacher: Conditioning) -> Tensor:
    """Distance between two conditionings of the same captions, float32 `[P]`.

    The two tokenizers cut a caption differently, so the means over the tokens are compared, and for SDXL the pooled
    embeddings as well.
    """
    distance = row_mse(student.encoder_hidden_states.mean(1), teacher.encoder_hidden_states.mean(1))
    if student.pooled_prompt_embeds is not None and teacher.pooled_prompt_embeds is not None:
        distance = distance + row_mse(student.pooled_prompt_embeds, teacher.pooled_prompt_embeds)
    return distance


def root(distances: Tensor) -> Tensor:
    """The roots of squared distances, float `[P]`, with a gradient at 0.

    Each row pulls by the same length, however far off it is: the mean of the roots is least at the spatial median of
    what is pulled at, which a minority of wrong rows moves little; that of the squares at the mean.
    """
    return (distances + 1e-8).sqrt()


def combine(
    noise_pred: Tensor,
    blocks: Mapping[str, Tensor],
    diffusion: Tensor,
    num_rows: int,
    weights: LossWeights,
    row_weights: Tensor | None = None,
    text: Tensor | None = None,
    attention: Tensor | None = None,
) -> Losses:
    """The total loss of a batch of `num_rows` rows, from the errors of its rows.

    Args:
        noise_pred: distillation errors of the first P rows, `[P]`.
        blocks: block -> distillation errors of the same rows, `[P]`.
        diffusion: errors of the last rows against the diffusion target, `[D]`.
        num_rows: B; P or D may be anything from 0 to B.
        weights: factors of the terms.
        row_weights: factor of each row, float `[B]` (min-SNR); None means 1.
        text: distances between the text states of the first P rows, `[P]`; row weights do not apply.
        attention: errors of the cross-attention layers' answers in the first P rows, `[P]`; likewise.
    """
    first, last = len(noise_pred), num_rows - len(diffusion)
    parallel_weights = None if row_weights is None else row_weights[:first]
    diffusion_weights = None if row_weights is None else row_weights[last:]

    def mean(rows: Tensor, row_weight: Tensor | None) -> Tensor:
        return (rows if row_weight is None else rows * row_weight).sum() / max(1, num_rows)

    noise_term, diffusion_term = mean(noise_pred, parallel_weights), mean(diffusion, diffusion_weights)
    block_terms = {name: mean(rows, parallel_weights) for name, rows in blocks.items()}
    total = noise_term.new_zeros(())
    for factor, term in ((weights.noise_pred, noise_term), (weights.diffusion, diffusion_term)):
        total = total + factor * term if factor else total  # without a weight, no way back through the UNet either
    for name, term in block_terms.items():
        factor = weights.features * weights.blocks.get(name, 1.0)
        total = total + factor * term if factor else total
    text_term = None if text is None else mean(text, None)
    if text_term is not None:
        total = total + weights.text * text_term
    attention_term = None if attention is None else mean(attention, None)
    if attention_term is not None:
        total = total + weights.attention * attention_term
    return Losses(total, noise_term, block_terms, diffusion_term, text_term, attention_term)


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Row weights float `[B]` that keep easy, nearly noise-free timesteps from dominating.

    Source: arXiv 2303.09556, equation 5: `min(snr, γ) / snr` for epsilon, `/ (snr + 1)` for v-prediction.
    """
    divisor = snr + 1 if prediction_type == "v_prediction" else snr
    return snr.clamp(max=gamma) / divisor.clamp(min=1e-12)


_LEAST_SNR = 1e-3
"""Stable Diffusion's schedule ends at 0.0047. Below this, an error of the noise says nothing of the image any more."""


def velocity_weights(snr: Tensor, prediction_type: str) -> Tensor:
    """Factors float `[B]` that make of a squared error of the prediction that of the velocity.

    An error e of the noise is one of `e / sqrt(ᾱ)` in `v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x0`, and `1 / ᾱ = 1 + 1 / snr`. At
    timesteps of nearly pure noise, which some schedules end with, the factor stays at 1,001.

    Source: arXiv 2202.00512, appendix D, for v.
    """
    return torch.ones_like(snr) if prediction_type == "v_prediction" else 1 + 1 / snr.clamp(min=_LEAST_SNR)
