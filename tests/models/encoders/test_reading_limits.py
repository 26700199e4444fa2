"""What an encoder does not read of a text is named, and a long text is cut in pieces that are read whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from transformers import BertTokenizer, ByT5Tokenizer

from pea.models.encoders.reading_limits import split_text, unknown_words, unread_text
from tests.tiny_models import clip_tokenizer


@dataclass
class Part:
    tokenizer: Any
    max_tokens: int


def bert(max_tokens: int = 7) -> Part:
    """Five tokens beside its two special ones, by default."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一只猫狗，。", "a", "cat", "dog", "play", "##ing"]
    return Part(
        BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}, model_max_length=512), max_tokens
    )


def byt5(max_tokens: int) -> Part:
    """No fast one, and so no offsets: a byte is a token, and one ends the text."""
    return Part(ByT5Tokenizer(), max_tokens)


@pytest.mark.parametrize(
    ("part", "text", "lost"),
    [
        (bert(), "一只猫", ""),
        (bert(), "一只猫一只", ""),
        (bert(), "一只猫一只狗", "狗"),
        (bert(), "a cat a dog playing", "ing"),
        (bert(), "", ""),
        (byt5(6), "abcde", ""),
        (byt5(6), "abcdefg", "fg"),
        (byt5(7), "猫猫狗", "狗"),
    ],
)
def test_the_lost_text_is_named(part: Part, text: str, lost: str) -> None:
    assert unread_text([part], text) == lost


def test_of_two_encoders_the_shorter_counts() -> None:
    assert unread_text([bert(7), bert(5)], "一只猫一只") == "一只"


@pytest.mark.parametrize(
    ("part", "text", "pieces"),
    [
        (bert(), "一只猫", ["一只猫"]),
        (bert(), "", [""]),
        (bert(), "一只猫，一只狗。", ["一只猫，", "一只狗。"]),
        (bert(), "a cat a dog playing a cat", ["a cat a dog", "playing a cat"]),
        (bert(), "猫" * 12, ["猫" * 5, "猫" * 5, "猫" * 2]),
        (byt5(6), "ab cd ef", ["ab cd", "ef"]),
        (byt5(2), "猫", ["猫"]),
    ],
)
def test_pieces_end_between_words(part: Part, text: str, pieces: list[str]) -> None:
    assert split_text([part], text) == pieces
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")


def test_unknown_characters() -> None:
    assert unknown_words([bert(20)], "一只猫") == []
    assert unknown_words([bert(20)], "一只☃和猫☃") == ["☃", "和"]
    assert unknown_words([bert(20), byt5(20)], "一只☃") == [], "the other one reads it"
    assert unknown_words([Part(clip_tokenizer(), 12)], "a cat") == []
    assert unknown_words([Part(clip_tokenizer(), 12)], "é") == ["é"]
