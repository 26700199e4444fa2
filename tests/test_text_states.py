"""Captions are encoded once, and always to the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pea.text_states import TextStates


class _Encoder:
    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> tuple[torch.Tensor, None]:
        self.calls.append(list(texts))
        return torch.tensor([[float(len(text))] for text in texts]), None


def test_a_table_answers_without_the_encoder() -> None:
    encoder = _Encoder()
    states = TextStates(encoder, ["aa", "b", "aa"])
    assert states.in_memory
    encoder.calls.clear()
    hidden, nothing = states(["b", "", "aa", "b"])
    assert hidden is not None and hidden.flatten().tolist() == [1, 0, 2, 1] and nothing is None
    assert encoder.calls == []


def test_unknown_captions_are_encoded_with_their_batch() -> None:
    encoder = _Encoder()
    states = TextStates(encoder, ["b"])
    hidden, _ = states(["b", "cccc"])
    assert hidden is not None and hidden.flatten().tolist() == [1, 4]
    assert encoder.calls[-1] == ["b", "cccc"]


def test_too_large_a_table_is_not_made() -> None:
    states = TextStates(_Encoder(), [str(number) for number in range(100)], max_bytes=16)
    assert not states.in_memory
    hidden, _ = states(["12"])
    assert hidden is not None and hidden.flatten().tolist() == [2]
