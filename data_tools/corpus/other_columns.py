"""What a row or a json knows beside image and captions, as values of JSON; what is none is named, and not kept."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Mapping
from typing import Any

from data_tools.corpus.column_names import ColumnMapping

_MAX_CHARACTERS = 100_000
"""Of one column, nested ones taken together."""
_MAX_LEVELS = 16


class _NoJsonError(Exception):
    """A value that JSON has no word for."""


def other_columns(values: Mapping[str, Any], mapping: ColumnMapping, notes: list[str]) -> dict[str, Any]:
    """The columns that ``mapping`` does not take: numbers, texts, times (in ISO 8601), and lists and objects of them.

    ``notes`` is told of each that is left out, but for those that are empty.
    """
    skipped = {mapping.image, *mapping.captions.values(), mapping.text}
    found = dict[str, Any]()
    for name, value in values.items():
        if name in skipped or value is None:
            continue
        try:
            found[name] = _Column().as_json(value)
        except _NoJsonError as problem:
            notes.append(f"without the column {name[:40]!a}, {problem}")
    return found


class _Column:
    """One value on its way to JSON, with the room that is left for what is in it."""

    def __init__(self) -> None:
        self._room = _MAX_CHARACTERS

    def as_json(self, value: Any, levels: int = _MAX_LEVELS) -> Any:
        """The value in JSON's words.

        Raises:
            _NoJsonError: it is none of JSON, too long, or nested too deep.
        """
        if isinstance(value, Mapping | list | tuple):
            if levels == 0:
                raise _NoJsonError(f"which is nested deeper than {_MAX_LEVELS} levels")
            if isinstance(value, Mapping):
                return {self._text(str(name)): self.as_json(each, levels - 1) for name, each in value.items()}
            return [self.as_json(each, levels - 1) for each in value]
        if isinstance(value, str):
            return self._text(value)
        self._take(1)
        return _of_one_value(value)

    def _text(self, text: str) -> str:
        self._take(len(text))
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate
            raise _NoJsonError("which is not Unicode") from None
        return text

    def _take(self, num_characters: int) -> None:
        self._room -= num_characters
        if self._room < 0:
            raise _NoJsonError(f"which is longer than {_MAX_CHARACTERS} characters")


def _of_one_value(value: Any) -> Any:
    """A number, a truth value, a time, or what is written as a text."""
    if isinstance(value, float):
        if math.isinf(value):
            raise _NoJsonError("which is infinite")
        return None if math.isnan(value) else value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta | uuid.UUID):
        return str(value)
    raise _NoJsonError("which holds bytes" if isinstance(value, bytes) else f"which holds a {type(value).__name__}")
