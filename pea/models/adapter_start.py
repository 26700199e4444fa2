"""Where an adapter starts: its inputs whitened, and its outputs scaled to the teacher's text states.

With torch's initial weights the adapter answers with states of about a twentieth of their spread, and a run of ordinary
length spends itself on growing them. And it sees little of what tells captions apart: the states of the text encoders
that were looked at (docs/results/start.md) vary along a few directions a hundred to ten thousand times more than along
most others, and what is depicted shows in those too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pea.errors import TrainingError
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.text_statistics import Moments, TextStatistics, text_statistics

_AT_ONCE = 64
_FLOOR = 1e-3
States = Callable[[Sequence[str]], tuple[Tensor | None, ...]]
"""Captions -> hidden states `[B, L, D]` and mask `[B, L]` (or None) of the native encoder."""


@torch.no_grad()
def whiten_inputs(adapter: PEA, states: States, captions: Sequence[str]) -> dict[str, Any]:
    """Let the hidden layers see the states of `captions` about 0 and spread alike in all directions; returns a record.

    The layer norm's bias takes the mean over all captions and tokens away, and the first layer's weights are multiplied
    by `(C + 0.001 c)^(-1/2)`: C is the covariance after the layer norm, c the mean of its diagonal. So the layers stay
    those of the published adapter. Directions of hardly any variance, where there is nothing to see but rounding, are
    left short by what is added. A single caption leaves the weights as they are.

    Raises:
        TrainingError: the states do not differ at all, or are not finite.
    """
    if len(set(captions)) < 2:
        return {}
    first, device = adapter.projector[0], adapter.layernorm.weight.device
    assert isinstance(first.weight, Tensor)
    count, total, products = 0, torch.zeros((), device=device), torch.zeros((), device=device)
    for start in range(0, len(captions), _AT_ONCE):
        hidden = states(captions[start : start + _AT_ONCE])[0]
        assert hidden is not None
        rows = adapter.layernorm(hidden.to(device).float()).flatten(0, 1).double()
        count, total, products = count + len(rows), total + rows.sum(0), products + rows.T @ rows
    mean = total.cpu() / count
    covariance = products.cpu() / count - torch.outer(mean, mean)
    if not covariance.isfinite().all():
        raise _unusable("of the encoder", "not finite")
    power = covariance.diagonal().mean()
    if power <= torch.finfo(torch.float32).eps ** 2:
        raise _unusable("of the encoder", "they are all the same")
    values, vectors = torch.linalg.eigh(covariance)
    whitening = (vectors * (values.clamp(min=0) + _FLOOR * power).rsqrt()) @ vectors.T
    first.weight.copy_(first.weight.double().cpu() @ whitening)
    adapter.layernorm.bias.copy_(-mean)
    return {"whitening_floor": _FLOOR}


@torch.no_grad()
def scale_outputs(adapter: PEA, states: States, captions: Sequence[str], english: TextStatistics) -> dict[str, Any]:
    """Scale an adapter so that its answers to `captions` spread as English text states do; returns the factors.

    SDXL head: the projector's last layer, for the pooled embedding; then `fc`, whose bias also takes the sequence to
    the English mean. SD1.5 head: the projector's last layer, which as published has no bias to shift with. One factor
    for all channels: the directions stay those of the initial weights. A single caption has no spread, and leaves the
    weights as they are.

    Raises:
        TrainingError: the answers, or the English states, do not differ at all or are not finite.
    """
    if len(set(captions)) < 2:
        return {"sequence": 1.0} | ({} if adapter.fc is None else {"pooled": 1.0})
    last = adapter.projector[-1]
    assert isinstance(last.weight, Tensor)
    factors: dict[str, Any] = {}
    if adapter.fc is not None:
        assert english.pooled is not None
        before = _answers(adapter, states, captions).pooled
        assert before is not None
        factors["pooled"] = _factor(english.pooled, before)
        last.weight.mul_(factors["pooled"])
    own = _answers(adapter, states, captions).hidden
    factors["sequence"] = _factor(english.hidden, own)
    if adapter.fc is None:
        last.weight.mul_(factors["sequence"])
        return factors
    adapter.fc.weight.mul_(factors["sequence"])
    shift = torch.tensor(english.hidden.mean) - factors["sequence"] * torch.tensor(own.mean)
    adapter.fc.bias.mul_(factors["sequence"]).add_(shift.to(adapter.fc.bias))
    return factors


def _answers(adapter: PEA, states: States, captions: Sequence[str]) -> TextStatistics:
    device = next(adapter.parameters()).device

    def answer(some: Sequence[str]) -> Conditioning:
        hidden, mask = (None if part is None else part.to(device) for part in states(some))
        assert hidden is not None
        answer: Conditioning = adapter(hidden.float(), mask)
        return answer

    groups = (answer(captions[start : start + _AT_ONCE]) for start in range(0, len(captions), _AT_ONCE))
    try:
        return text_statistics(groups)
    except ValueError as error:
        raise _unusable("of the adapter", error) from error


def _factor(wanted: Moments, own: Moments) -> float:
    if not wanted.spread or not own.spread:
        raise _unusable("English" if not wanted.spread else "of the adapter", "they are all the same")
    return float(f"{wanted.spread / own.spread:.6g}")


def _unusable(whose: str, why: object) -> TrainingError:
    return TrainingError(
        f"the adapter's start cannot be scaled to text states {whose}",
        got=why,
        remedy="Check the captions and the text encoders, or set train.init=torch.",
    )
