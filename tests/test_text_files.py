"""Text states on disk: stored once, read back to the bit, never stale, never half-written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pea.errors import CacheError
from pea.text_files import TextFiles
from pea.text_states import Store, TextStates, digests

CAPTIONS = [f"caption {number}" for number in range(200)]


class Encoder:
    """Counts its calls; the second part is None, as of an encoder without a pooled embedding."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self, texts: Sequence[str]) -> tuple[torch.Tensor, None, torch.Tensor]:
        self.num_calls += 1
        lengths = torch.tensor([len(text) for text in texts])
        return torch.sin(lengths[:, None, None] * torch.arange(6.0).reshape(2, 3)), None, lengths


def states(folder: Path, encoder: Encoder, digest: str = "a", captions: Sequence[str] = CAPTIONS) -> TextStates:
    return TextStates(encoder, captions, store=Store(folder, digest))


def test_a_later_run_asks_the_files_and_gets_the_same_bits(tmp_path: Path) -> None:
    asked, plain = [CAPTIONS[150], "", CAPTIONS[3]], TextStates(Encoder(), CAPTIONS)
    for number in range(2):
        encoder = Encoder()
        answer = states(tmp_path, encoder)(asked)
        assert encoder.num_calls == (2 if number == 0 else 0)  # 201 captions in groups of 128
        for part, expected in zip(answer, plain(asked), strict=True):
            assert (part is None and expected is None) or torch.equal(part, expected)


def test_another_encoder_or_corpus_has_files_of_its_own(tmp_path: Path) -> None:
    states(tmp_path, Encoder())
    for digest, captions in (("b", CAPTIONS), ("a", CAPTIONS[:-1])):
        encoder = Encoder()
        states(tmp_path, encoder, digest, captions)
        assert encoder.num_calls == 2
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["bit", "short", "missing"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    states(tmp_path, Encoder())
    [file] = tmp_path.glob("*/part-0.npy")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.unlink()
    if damage != "missing":
        file.write_bytes(data if damage == "bit" else data[:-8])
    with pytest.raises(CacheError, match=r"text states are damaged.*Remove this folder"):
        states(tmp_path, Encoder())


def test_a_broken_off_run_leaves_nothing(tmp_path: Path) -> None:
    def break_off(texts: Sequence[str]) -> tuple[torch.Tensor]:
        if texts[0] != "":
            raise KeyboardInterrupt
        return (torch.zeros(len(texts), 2),)

    with pytest.raises(KeyboardInterrupt):
        TextStates(break_off, CAPTIONS, store=Store(tmp_path, "a"))
    assert list(tmp_path.iterdir()) == []
    assert TextFiles(tmp_path, "a", digests(["", *CAPTIONS])).read() is None
