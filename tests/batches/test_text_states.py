"""Captions are encoded once, and always to the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import pytest
import torch

from pea.batches import text_states
from pea.batches.text_states import TextStates, digests, distinct


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


def test_captions_of_a_large_cache_are_not_gathered_once_the_table_is_too_small() -> None:
    def endless() -> Iterator[str]:
        yield from map(str, count())

    assert distinct(endless(), 1000) is None
    assert distinct(["a", "b", "a"], 3) == {"", "a", "b"}
    states = TextStates(_Encoder(), endless(), max_bytes=4000)
    assert not states.in_memory and len(states._digests) == 0


def test_digests_know_each_text_once_however_they_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"caption {number}" for number in range(500)] * 2
    whole = digests(texts)
    monkeypatch.setattr(text_states, "_DIGESTED_AT_ONCE", 7)
    assert digests(reversed(texts)).tolist() == whole.tolist() == sorted(whole.tolist())
    assert len(whole) == 500 and whole.dtype.itemsize == 16
