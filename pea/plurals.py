"""Numbers with their nouns, as people write them."""

from __future__ import annotations

import re

_ES = re.compile(r"(s|x|ch|sh)$")
_IES = re.compile(r"(?<![aeiou])y$")


def plural(noun: str) -> str:
    """``tar`` -> ``tars``, ``entry`` -> ``entries``, ``loss`` -> ``losses``."""
    return _IES.sub("ies", noun) if _IES.search(noun) else f"{noun}es" if _ES.search(noun) else f"{noun}s"


def count_of(number: float, noun: str) -> str:
    """``1, "tar"`` -> ``1 tar``; ``2000`` -> ``2,000 tars``; ``0.5`` -> ``0.5 tars``; ``0`` -> ``no tars``."""
    shown = f"{int(number):,}" if number == int(number) else f"{number:g}"
    return f"{shown if number else 'no'} {noun if number == 1 else plural(noun)}"
