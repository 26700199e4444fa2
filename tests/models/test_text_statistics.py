"""Statistics of text states: right, stored and read back, and nothing else is taken for them."""

from __future__ import annotations

import json
import math

import pytest
import torch

from pea.models.conditioning import Conditioning
from pea.models.text_statistics import TextStatistics, encoded_statistics, text_statistics

HIDDEN, POOLED = torch.arange(24.0).reshape(2, 3, 4) ** 1.5, torch.tensor([[1.0, 5.0], [3.0, 9.0]])


def test_moments_are_over_captions_and_tokens() -> None:
    found = text_statistics([Conditioning(HIDDEN[:1], POOLED[:1]), Conditioning(HIDDEN[1:], POOLED[1:])])
    flat = HIDDEN.reshape(6, 4).double()
    assert found.num_captions == 2
    assert found.hidden.mean == pytest.approx(flat.mean(0).tolist(), rel=1e-5)
    assert found.hidden.std == pytest.approx(flat.std(0, correction=0).tolist(), rel=1e-5)
    assert found.pooled is not None and found.pooled.mean == (2.0, 7.0) and found.pooled.std == (1.0, 2.0)
    assert found.pooled.spread == pytest.approx(math.sqrt(2.5))


def test_stored_and_read_back() -> None:
    for pooled in (POOLED, None):
        found = text_statistics([Conditioning(HIDDEN, pooled)])
        again = TextStatistics.from_json(found.to_json())
        assert again == found and again.digest == found.digest
    assert found.digest != text_statistics([Conditioning(HIDDEN + 1, None)]).digest


def test_captions_are_encoded_in_groups() -> None:
    groups = []

    def encode(texts: list[str]) -> Conditioning:
        groups.append(len(texts))
        return Conditioning(torch.tensor([[[float(len(text))]] for text in texts]), None)

    found = encoded_statistics(encode, ["x" * number for number in range(1, 131)])  # type: ignore[arg-type]
    assert groups == [64, 64, 2] and found.hidden.mean == (65.5,)


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(ValueError, match="no captions"):
        text_statistics([])
    with pytest.raises(ValueError, match="not finite"):
        text_statistics([Conditioning(torch.full((1, 2, 3), math.nan), None)])
    whole = json.loads(text_statistics([Conditioning(HIDDEN, POOLED)]).to_json())
    for wrong in (
        "[]",
        "{}",
        json.dumps(whole | {"hidden": {"mean": [1.0], "std": []}}),
        json.dumps(whole | {"pooled": 3}),
        "{",
    ):
        with pytest.raises(ValueError, match=r"."):
            TextStatistics.from_json(wrong)
