"""What a misspelt word may have meant: said only where it is likely."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_ALIKE = 0.6
"""Least likeness of two words with the same first letter, where 1 is equal (difflib's ratio)."""
_ALIKE_WITHOUT_FIRST = 0.75
"""Of two words that begin with different letters, as few misspelt words do: ``force`` is not ``price``."""


def nearest(word: str, known: Iterable[str], least: float = _ALIKE) -> str | None:
    """The known word that is most like ``word``, dashes before both aside; None: none is like it."""
    bare: dict[str, str] = {}
    for each in known:
        bare.setdefault(each.lstrip("-"), each)
    meant = word.lstrip("-")
    for found in get_close_matches(meant, bare, n=len(bare) or 1, cutoff=least):
        if found[:1] == meant[:1] or get_close_matches(meant, [found], cutoff=_ALIKE_WITHOUT_FIRST):
            return bare[found]
    return None
