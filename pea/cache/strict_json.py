"""JSON of a cache, which may come from a stranger: bounded in size and depth, and of the shape that is expected.

pydantic would do the same, but is slow to import, and a look at a summary does without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from pea.foreign_text import is_unicode
from pea.plurals import count_of
from pea.storage.location import Location

Check = Callable[[Any, str], None]
"""(value, its place in the document) -> raises ``ValueError`` if the value is not what it must be."""
MOST = 1 << 53
"""Largest number that every JSON reader keeps."""
_MOST_ITEMS = 1 << 22
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f/\\]")
_MAX_NAME_BYTES = 255


def parse(data: bytes | str) -> Any:
    """A document.

    Raises:
        ValueError: it is no JSON, nested too deeply, or has texts that UTF-8 cannot hold.
    """
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
        if _SURROGATE.search(data if isinstance(data, bytes) else data.encode()):
            json.dumps(document, ensure_ascii=False).encode()  # half of a pair is a ValueError
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return document


def read_at_most(path: Location, most: int) -> bytes:
    """The content of a file that has at most so many bytes.

    Raises:
        ValueError: it has more.
        StorageError: it cannot be read, or is not there.
    """
    data = path.read_bytes(0, most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most} bytes")
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def count(most: int = MOST, least: int = 0) -> Check:
    """A whole number, ``least <= value <= most``."""

    def check(value: Any, place: str) -> None:
        if type(value) is not int or not least <= value <= most:
            _fail(place, f"a whole number from {least} to {most}", value)

    return check


def number(least: float, most: float) -> Check:
    """A number, ``least <= value <= most``."""

    def check(value: Any, place: str) -> None:
        if type(value) not in (int, float) or not least <= value <= most:
            _fail(place, f"a number from {least} to {most}", value)

    return check


def text(most: int = 1 << 20, pattern: str | None = None) -> Check:
    """A text of at most so many characters, which UTF-8 can hold."""
    compiled = re.compile(pattern) if pattern else None

    def check(value: Any, place: str) -> None:
        if type(value) is not str or len(value) > most or (compiled and not compiled.fullmatch(value)):
            _fail(place, "a text" if pattern is None else f"a text like {pattern}", value)
        if not value.isascii():
            value.encode()  # a lone half of a surrogate pair is a ValueError

    return check


def is_plain_name(value: object) -> bool:
    """Whether a text is the name of something in a folder, and never of anything outside of it."""
    if type(value) is not str or not value or value.startswith(".") or _CONTROL.search(value):
        return False
    return len(value.encode("utf-8", "replace")) <= _MAX_NAME_BYTES and is_unicode(value)


def plain_name(value: Any, place: str) -> None:
    """The name of something in a folder."""
    if not is_plain_name(value):
        _fail(place, "a plain name", value)


def plain_path(value: Any, place: str) -> None:
    """A path below a folder."""
    if type(value) is not str or len(value) > 4096 or not all(map(is_plain_name, value.split("/"))):
        _fail(place, "a plain relative path", value)


def anything(value: Any, place: str) -> None:
    """Any JSON."""


def one_of(*choices: object) -> Check:
    """One of some values."""

    def check(value: Any, place: str) -> None:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            _fail(place, " or ".join(map(str, choices)), value)

    return check


def optional(other: Check) -> Check:
    """Null, or something else."""

    def check(value: Any, place: str) -> None:
        if value is not None:
            other(value, place)

    return check


def list_of(item: Check, most: int = _MOST_ITEMS) -> Check:
    """A list of at most so many items of one kind."""

    def check(value: Any, place: str) -> None:
        if type(value) is not list or len(value) > most:
            _fail(place, f"a list of at most {most}", value)
        for each in value:
            item(each, place)

    return check


def items(*checks: Check) -> Check:
    """A list of exactly these."""

    def check(value: Any, place: str) -> None:
        if type(value) is not list or len(value) != len(checks):
            _fail(place, f"a list of {len(checks)}", value)
        for one, each in zip(checks, value, strict=True):
            one(each, place)

    return check


def map_of(key: Check, item: Check, most: int = _MOST_ITEMS) -> Check:
    """An object with any keys of one kind, and values of one kind."""

    def check(value: Any, place: str) -> None:
        if type(value) is not dict or len(value) > most:
            _fail(place, f"an object with at most {count_of(most, 'entry')}", value)
        for name, each in value.items():
            key(name, place)
            item(each, f"{place}.{name}")

    return check


def fields(
    required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, *, others: bool = False
) -> Check:
    """An object with these keys; ``others``: it may have more, which nobody reads."""
    optional = optional or {}

    def check(value: Any, place: str) -> None:
        if type(value) is not dict:
            _fail(place, "an object", value)
        if missing := required.keys() - value.keys():
            _fail(place, f"the entry {min(missing)!r}", sorted(value)[:9])
        if not others and (extra := value.keys() - required.keys() - optional.keys()):
            _fail(place, "no other entries", min(extra))
        for name, one in (*required.items(), *optional.items()):
            if name in value:
                one(value[name], f"{place}.{name}")

    return check


def _fail(place: str, expected: str, value: Any) -> NoReturn:
    shown = repr(value) if isinstance(value, (str, int, float, list, bool)) or value is None else type(value).__name__
    raise ValueError(f"{place}: expected {expected}, got {shown if len(shown) <= 80 else shown[:79] + '…'}")
