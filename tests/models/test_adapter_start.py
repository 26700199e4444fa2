"""The start: inputs are whitened, and the first answers spread as English text states do and lie about their mean."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pea.errors import TrainingError
from pea.models.adapter import PEA, new_adapter
from pea.models.adapter_start import scale_outputs, whiten_inputs
from pea.models.conditioning import Conditioning
from pea.models.text_statistics import TextStatistics, text_statistics

CAPTIONS = [f"caption {number}" for number in range(150)]
SDXL = {"cross_attention_dim": 24, "projection_class_embeddings_input_dim": 16 + 6 * 4, "addition_time_embed_dim": 4,
        "addition_embed_type": "text_time"}  # fmt: skip
SD15 = {"cross_attention_dim": 24}


def states(captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Hidden states `[B, 7, 8]` that depend on the caption alone."""
    rows = [torch.randn(7, 8, generator=torch.Generator().manual_seed(len(CAPTIONS) + int(c[8:]))) for c in captions]
    return torch.stack(rows), None


def english(*, pooled: bool) -> TextStatistics:
    generator = torch.Generator().manual_seed(1)
    hidden = 3 + 2 * torch.randn(9, 5, 24, generator=generator)
    return text_statistics([Conditioning(hidden, 4 * torch.randn(9, 16, generator=generator) if pooled else None)])


def adapter_for(unet: dict[str, object], seed: int = 0) -> PEA:
    return new_adapter(unet, 8, hidden_size=16, num_layers=2, max_tokens=7, seed=seed)


def answers(adapter: PEA) -> TextStatistics:
    with torch.no_grad():
        return text_statistics([adapter(*states(CAPTIONS))])


def test_sdxl_head_takes_on_spread_and_mean_of_the_sequence_and_spread_of_the_pooled_embedding() -> None:
    adapter, wanted = adapter_for(SDXL), english(pooled=True)
    assert answers(adapter).hidden.spread < 0.2 * wanted.hidden.spread
    factors = scale_outputs(adapter, states, CAPTIONS, wanted)
    found = answers(adapter)
    assert found.pooled is not None and wanted.pooled is not None
    assert found.hidden.spread == pytest.approx(wanted.hidden.spread, rel=1e-4)
    assert found.pooled.spread == pytest.approx(wanted.pooled.spread, rel=1e-4)
    assert found.hidden.mean == pytest.approx(wanted.hidden.mean, abs=1e-3)
    assert set(factors) == {"pooled", "sequence"} and factors["pooled"] > 5


def test_sd15_head_is_scaled_without_a_shift() -> None:
    adapter, wanted = adapter_for(SD15), english(pooled=False)
    before = answers(adapter).hidden
    factors = scale_outputs(adapter, states, CAPTIONS, wanted)
    found = answers(adapter).hidden
    assert found.spread == pytest.approx(wanted.hidden.spread, rel=1e-4)
    assert found.mean == pytest.approx([factors["sequence"] * mean for mean in before.mean], abs=1e-4)
    assert [name for name, _ in adapter.named_parameters()] == [
        name for name, _ in adapter_for(SD15).named_parameters()
    ]


def test_the_start_depends_on_its_inputs_alone() -> None:
    one, two, other = adapter_for(SDXL), adapter_for(SDXL), adapter_for(SDXL, seed=1)
    for adapter in (one, two, other):
        scale_outputs(adapter, states, CAPTIONS, english(pooled=True))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.projector[0].weight, other.projector[0].weight)


@pytest.mark.parametrize("which", ["English", "of the adapter"])
def test_states_that_do_not_differ_are_refused(which: str) -> None:
    wanted, captions = english(pooled=False), CAPTIONS
    adapter = adapter_for(SD15)
    if which == "English":
        wanted = text_statistics([Conditioning(torch.ones(4, 5, 24), None)])
    else:
        torch.nn.init.zeros_(adapter.projector[0].weight)
    with pytest.raises(TrainingError, match=f"text states {which}.*train.init=torch"):
        scale_outputs(adapter, states, captions, wanted)


@pytest.mark.parametrize("unet", [SDXL, SD15], ids=["sdxl", "sd15"])
def test_a_single_caption_has_no_spread_and_changes_nothing(unet: dict[str, object]) -> None:
    adapter, before = adapter_for(unet), adapter_for(unet).state_dict()
    factors = scale_outputs(adapter, states, [CAPTIONS[0]] * 3, english(pooled=unet is SDXL))
    assert set(factors.values()) == {1.0}
    assert all(torch.equal(value, before[name]) for name, value in adapter.state_dict().items())


def narrow_states(captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """States that vary along one direction a hundred times more than along the others, about a mean far from 0."""
    hidden, mask = states(captions)
    stretch = torch.tensor([20.0] + [0.2] * 7)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))[0]
    return hidden * stretch @ turn + 5, mask


def layer_inputs(adapter: PEA) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what the first layer's weights before the whitening are multiplied with."""
    plain = adapter_for(SDXL).projector[0].weight.double()
    with torch.no_grad():
        hidden = adapter.layernorm(narrow_states(CAPTIONS)[0]).flatten(0, 1).double()
        seen = hidden @ torch.linalg.lstsq(plain, adapter.projector[0].weight.double()).solution.T
    return seen.mean(0), torch.cov(seen.T)


def test_the_first_layer_sees_whitened_states_about_0() -> None:
    adapter = adapter_for(SDXL)
    before = torch.linalg.eigvalsh(layer_inputs(adapter)[1])
    assert whiten_inputs(adapter, narrow_states, CAPTIONS) == {"whitening_floor": 1e-3}
    mean, covariance = layer_inputs(adapter)
    assert before[1] < 1e-2 * before[-1]
    values = torch.linalg.eigvalsh(covariance)
    assert mean.abs().max() < 1e-4
    assert 0.5 < values[1] <= values[-1] < 1.1, "the layer norm itself takes one direction away"
    assert values[0] < 0.1, "and nothing blows up what it leaves of that one"
    assert adapter.layernorm.weight.eq(1).all()


def test_whitening_depends_on_its_inputs_alone_and_comes_before_scaling() -> None:
    wanted = english(pooled=True)
    one, two = adapter_for(SDXL), adapter_for(SDXL)
    for adapter in (one, two):
        whiten_inputs(adapter, narrow_states, CAPTIONS)
        scale_outputs(adapter, narrow_states, CAPTIONS, wanted)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with torch.no_grad():
        found = text_statistics([one(*narrow_states(CAPTIONS))])
    assert found.hidden.spread == pytest.approx(wanted.hidden.spread, rel=1e-4)


@pytest.mark.parametrize(("value", "why"), [(1.0, "all the same"), (float("nan"), "not finite")])
def test_states_that_cannot_be_whitened_are_refused(value: float, why: str) -> None:
    def same(captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        return torch.full((len(captions), 7, 8), value), None

    with pytest.raises(TrainingError, match=f"text states of the encoder.*{why}"):
        whiten_inputs(adapter_for(SD15), same, CAPTIONS)


def test_a_single_caption_is_not_whitened() -> None:
    adapter, before = adapter_for(SDXL), adapter_for(SDXL).state_dict()
    assert whiten_inputs(adapter, states, [CAPTIONS[0]] * 3) == {}
    assert all(torch.equal(value, before[name]) for name, value in adapter.state_dict().items())
