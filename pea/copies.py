"""Copies, on this machine, of what lies in a store: a person is told the place that counts, not that of the copy."""

from __future__ import annotations

import re
from pathlib import Path

_PLACES: dict[str, str] = {}


def note_copy(copy: Path, place: object) -> None:
    """From now on a file or folder of this machine is known as the copy of a place in a store."""
    _PLACES[str(copy)] = str(place)


def as_stored(text: str) -> str:
    """A text with the place in the store wherever it names a copy, or something in it."""
    for copy, place in _PLACES.items():
        if copy in text:
            text = re.sub(re.escape(copy) + r"(?![\w-]|\.\w)", lambda _, place=place: place, text)  # type: ignore[misc]
    return text
