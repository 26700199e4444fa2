"""A scaled start: the adapter's first answers spread as English text states do, and lie about their mean."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pea.errors import TrainingError
from pea.models.adapter import PEA, new_adapter
from pea.models.adapter_start import scale_outputs
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
