"""What of a text an encoder does not read: the part beyond its length, and characters that its tokenizer lacks.

`parts`: the encoders that read the text side by side, one or two (`TextEncoder.parts`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from pea.plurals import count_of

_ENDS = re.compile(r"\s+|(?<=[,.;:!?，。；：！？、])")
"""Where a long text is cut rather than within a word or a clause."""
_SHOWN = 200
"""Characters of a text that a note quotes."""


class Part(Protocol):
    """One encoder."""

    tokenizer: Any

    @property
    def max_tokens(self) -> int:
        """Tokens that it reads, its own special ones among them."""


def unread_text(parts: Sequence[Part], text: str) -> str:
    """The end of `text` that at least one of the encoders does not read; empty where all is read."""
    return text[_num_read(parts, text) :].strip()


def split_text(parts: Sequence[Part], text: str) -> list[str]:
    """`text` in pieces that are each read whole, cut at spaces and punctuation where there are any."""
    pieces, rest = [], text
    while (end := _num_read(parts, rest)) < len(rest):
        end = _before_a_word(rest, max(1, end))
        while end > 1 and _num_read(parts, rest[:end]) < end:  # cut off, it may be other tokens
            end -= 1
        pieces.append(rest[:end].strip())
        rest = rest[end:].strip()
    return [*pieces, rest] if rest or not pieces else pieces


def unknown_words(parts: Sequence[Part], text: str) -> list[str]:
    """The words or characters that become "unknown" to every one of the encoders, each once."""
    each = [_unknown(part.tokenizer, text) for part in parts]
    return each[0] if all(each) else []


def notes_on(parts: Sequence[Part], prompts: Sequence[str], max_tokens: int, *, chunk: bool) -> list[str]:
    """What is to be said of prompts that are not read whole; of those read in pieces (`chunk`) nothing is lost."""
    said = []
    for prompt in dict.fromkeys(prompts):
        if not chunk and (lost := unread_text(parts, prompt)):
            said.append(
                f"the text encoder reads {count_of(max_tokens, 'token')}; lost of a prompt: {_shown(lost)} "
                "(chunk=True reads it in pieces)"
            )
        if unknown := unknown_words(parts, prompt):
            said.append(f"the text encoder does not know {', '.join(map(_shown, unknown))} in {_shown(prompt)}")
    return said


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _num_read(parts: Sequence[Part], text: str) -> int:
    """Number of characters at the beginning of `text` that all encoders read."""
    return min(_num_read_by(part.tokenizer, part.max_tokens, text) for part in parts)


def _num_read_by(tokenizer: Any, max_tokens: int, text: str) -> int:
    if len(_ids(tokenizer, text)) <= max_tokens:
        return len(text)
    if tokenizer.is_fast:
        read = tokenizer(text, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
        return max((end for _, end in read["offset_mapping"]), default=0)
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if len(_ids(tokenizer, text[:middle])) <= max_tokens:
            fits = middle
        else:
            too_long = middle
    return fits


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    return ids


def _before_a_word(text: str, end: int) -> int:
    """The last good place to cut in the second half of `text[:end]`; `end` where there is none, as in one long word."""
    if text[end : end + 1].isspace():
        return end
    return max((found.end() for found in _ENDS.finditer(text, end // 2, end)), default=end)


def _unknown(tokenizer: Any, text: str) -> list[str]:
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return []
    if tokenizer.is_fast:
        read = tokenizer(text, return_offsets_mapping=True, verbose=False)
        spans = zip(read["input_ids"], read["offset_mapping"], strict=True)
        words = [text[start:end].strip() for index, (start, end) in spans if index == unknown]
    else:
        tokens = tokenizer.tokenize(text)
        ids = tokenizer.convert_tokens_to_ids(tokens)
        words = [token.strip("▁ ") for token, index in zip(tokens, ids, strict=True) if index == unknown]
    return [word for word in dict.fromkeys(words) if word]
