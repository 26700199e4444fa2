"""The student's step: native text states through the adapter, one UNet pass, the losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pea.attention.layers import AttentionLayers, Powers
from pea.batches.batch import Batch
from pea.models.conditioning import Conditioning
from pea.models.unet import Teacher
from pea.training.losses import Losses, LossWeights, combine, min_snr_weights, row_mse, text_distance, velocity_weights
from pea.training.signals import SignalSource


@dataclass(frozen=True)
class AttentionLoss:
    """How differently the frozen cross-attention layers answer a batch's queries with the student's text."""

    layers: AttentionLayers
    powers: Powers
    weights: Mapping[str, float] = field(default_factory=dict)
    """Cross-attention layer -> factor, 1 where absent."""
    own_queries: bool = False
    """Ask the queries of the student's own pass, at every position, in place of the teacher's cached ones."""

    def errors(self, student: Conditioning, batch: Batch, queries: Mapping[str, Tensor] | None = None) -> Tensor:
        """Float32 `[P]`: the mean over the parallel rows, for each; `student`: the conditioning of those rows.

        `queries`: of the student's pass over the batch, layer -> `[B, Q, C]`; None: those of the batch.
        """
        targets, rows = batch.attention, batch.num_parallel
        if targets is None or rows == 0:
            return student.encoder_hidden_states.new_zeros(0)
        targets = targets if queries is None else targets.asking(queries)
        losses = self.layers.losses(targets, student, self.powers, self.weights)
        return losses.total.expand(rows)


def student_losses(
    batch: Batch,
    hidden_states: Tensor,
    attention_mask: Tensor | None,
    adapter: Callable[[Tensor, Tensor | None], Conditioning],
    teacher: Teacher,
    source: SignalSource,
    weights: LossWeights,
    min_snr_gamma: float | None = None,
    *,
    diffusion_on_all: bool = False,
    diffusion_of_velocity: bool = False,
    english: Conditioning | None = None,
    attention: AttentionLoss | None = None,
    pooled_from: tuple[Tensor, Tensor | None] | None = None,
    disturb: Callable[[Conditioning], Conditioning] | None = None,
) -> Losses:
    """Losses of one batch of B rows.

    Args:
        batch: the rows.
        hidden_states: the native encoder's states of the captions, float `[B, L, D]`.
        attention_mask: int `[B, L]`, or None.
        adapter: the adapter (or its distributed wrapper).
        teacher: the frozen UNet that the student shares.
        source: where the teacher's answers come from.
        weights: factors of the terms.
        min_snr_gamma: γ of min-SNR weights of the rows; None weights all alike.
        diffusion_on_all: put the diffusion loss on every row, not on the culture rows alone.
        diffusion_of_velocity: the diffusion loss measures the error of the velocity, whatever the UNet predicts. With
            min-SNR weights it does not matter: they are those of the error of the image either way.
        english: the teacher's conditioning of the parallel rows, for the distance between the text states.
        attention: for the loss on queries.
        pooled_from: states and mask that the pooled embedding is made of, where they are others: a dropped caption
            may stay in it.
        disturb: changes the student's text states on their way to the UNet.

    The UNet is asked about the rows that a loss with a weight looks at: where only culture rows are left, about those,
    and where there are none, not at all. The other terms are 0 then.
    """
    student = condition(adapter, hidden_states, attention_mask, pooled_from)
    first_rows = _first(student, batch.num_parallel)
    text = None if english is None else text_distance(first_rows, english)
    own_queries = attention is not None and attention.own_queries
    asked = None if attention is None or own_queries else attention.errors(first_rows, batch)
    light = text if asked is None else asked
    first = _first_row(batch, weights, diffusion_on_all=diffusion_on_all)
    if light is not None and first == len(batch):
        return combine(light[:0], {}, light[:0], len(batch), weights, text=text, attention=asked)
    shown = batch.culture_alone() if 0 < first < len(batch) and not own_queries else batch
    seen = _last(student if disturb is None else disturb(student), len(shown))
    noisy = teacher.add_noise(shown.latents, shown.noise, shown.timesteps)
    # Where the pass serves for its queries alone, nothing has to find the way back through it.
    with torch.set_grad_enabled(torch.is_grad_enabled() and not (own_queries and first == len(batch))):
        output = teacher.forward(noisy, shown.timesteps, seen, shown.time_ids, "all" if own_queries else None)
    if attention is not None and own_queries:
        asked = attention.errors(first_rows, batch, output.queries)
    errors = source.errors(output, shown, noisy)
    target = teacher.target(shown.latents, shown.noise, shown.timesteps)
    start = 0 if diffusion_on_all else shown.num_parallel
    diffusion = row_mse(output.noise_pred[start:], target[start:])
    if diffusion_of_velocity and min_snr_gamma is None:
        diffusion = diffusion * velocity_weights(teacher.snr(shown.timesteps[start:]), teacher.prediction_type)
    row_weights = None if min_snr_gamma is None else _min_snr_weights(batch, teacher, min_snr_gamma)
    return combine(errors.noise_pred, errors.blocks, diffusion, len(batch), weights, row_weights, text, asked)


def _min_snr_weights(batch: Batch, teacher: Teacher, gamma: float) -> Tensor:
    """Of all rows, float `[B]`."""
    return min_snr_weights(teacher.snr(batch.timesteps), gamma, teacher.prediction_type)


def disturbed(conditioning: Conditioning, length: float, seed: int) -> Conditioning:
    """The conditioning plus normal noise, for every token and for the pooled embedding of about this Euclidean length.

    The noise depends on the seed and the shape alone.

    Source: arXiv 2405.20494, conditional embedding perturbation: `N(0, length² / width)` per coordinate.
    """
    generator = torch.Generator().manual_seed(seed)

    def disturb(states: Tensor) -> Tensor:
        noise = torch.randn(states.shape, generator=generator) * (length / math.sqrt(states.shape[-1]))
        return states + noise.to(states)

    hidden, pooled = conditioning
    return Conditioning(disturb(hidden), None if pooled is None else disturb(pooled))


def condition(
    adapter: Callable[[Tensor, Tensor | None], Conditioning],
    hidden_states: Tensor,
    attention_mask: Tensor | None,
    pooled_from: tuple[Tensor, Tensor | None] | None,
) -> Conditioning:
    """The adapter's answer, in one pass also where its pooled embedding is that of other states."""
    if pooled_from is None:
        return adapter(hidden_states, attention_mask)
    states, mask = pooled_from
    masks = None if attention_mask is None or mask is None else torch.cat([attention_mask, mask])
    hidden, pooled = adapter(torch.cat([hidden_states, states]), masks)
    rows = len(hidden_states)
    return Conditioning(hidden[:rows], None if pooled is None else pooled[rows:])


def _first_row(batch: Batch, weights: LossWeights, *, diffusion_on_all: bool) -> int:
    """The first row that a loss on the student's UNet pass looks at, and with it all that follow; B: none."""
    distilled = batch.num_parallel > 0 and (weights.noise_pred > 0 or weights.features > 0)
    if distilled or (diffusion_on_all and weights.diffusion > 0):
        return 0
    return batch.num_parallel if weights.diffusion > 0 else len(batch)


def _first(conditioning: Conditioning, count: int) -> Conditioning:
    hidden, pooled = conditioning
    return Conditioning(hidden[:count], None if pooled is None else pooled[:count])


def _last(conditioning: Conditioning, count: int) -> Conditioning:
    hidden, pooled = conditioning
    return Conditioning(hidden[-count:], None if pooled is None else pooled[-count:])
