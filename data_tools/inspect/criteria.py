"""What picks samples to be taken down: a condition on a field of theirs, or a list of URLs and hashes."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from operator import ge, gt, le, lt
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pea.corpus.metadata import DIGESTS, Metadata
from pea.errors import CorpusError

_CONDITION = re.compile(r"([^=!<>]+)(!=|>=|<=|=|>|<)(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}
_HASH = re.compile(r"[0-9a-f]+")
_SHOWN_VALUES = 5
_MOST_VALUES = 1000
_MOST_FIELDS = 40
URL = "url"


class Criterion(ABC):
    """Picks samples, and counts what it saw, so that an answer of none can be understood."""

    def __init__(self, name: str) -> None:
        self.name = name
        """As the user gave it."""
        self.num_matches = 0

    def matches(self, sample: Metadata) -> bool:
        """Whether the sample is picked."""
        found = self._matches(sample)
        self.num_matches += found
        return found

    @abstractmethod
    def _matches(self, sample: Metadata) -> bool: ...

    @abstractmethod
    def finish(self) -> None:
        """All samples were seen.

        Raises:
            CorpusError: what is looked at is in none of them.
        """

    @abstractmethod
    def remarks(self) -> list[str]:
        """What a reader should know of the samples that were not picked."""


class Condition(Criterion):
    """``FIELD=VALUE`` or one of ``!=``, ``<``, ``<=``, ``>``, ``>=``.

    Texts are equal whatever their case. Of a list, one equal entry is enough. An absent field is an empty one, which
    ``FIELD=`` picks, and ``!=`` with any value.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        split = _CONDITION.fullmatch(text)
        if split is None or not split[1].strip():
            raise CorpusError("not a condition", where="--where", expected="FIELD=VALUE, !=, <, <=, > or >=", got=text)
        self._field, self._sign, self._value = split[1].strip(), split[2], split[3].strip()
        self._limit = _number(self._value)
        if self._sign in _ORDERS and self._limit is None:
            raise CorpusError("not a number", where="--where", got=text)
        self._num_present = self._num_absent = self._num_no_numbers = 0
        self._values: Counter[str] = Counter()
        self._fields: dict[str, None] = {}

    def _matches(self, sample: Metadata) -> bool:
        value = sample.get(self._field)
        if not self._num_present and len(self._fields) < _MOST_FIELDS:
            self._fields |= dict.fromkeys(map(str, sample.fields))
        if value is None or value == "" or value != value:  # NaN, as tables have where there is nothing
            value = ""
            self._num_absent += 1
        else:
            self._num_present += 1
            if len(self._values) < _MOST_VALUES:
                self._values[_text(value)] += 1
        if self._limit is not None and self._sign in _ORDERS:
            number = _number(value)
            self._num_no_numbers += number is None and value != ""
            return number is not None and _ORDERS[self._sign](number, self._limit)
        equal = any(self._equals(each) for each in (value if isinstance(value, list | tuple) else [value]))
        return equal == (self._sign == "=")

    def _equals(self, value: Any) -> bool:
        number = _number(value)
        if number is not None and self._limit is not None:
            return number == self._limit
        return _text(value).casefold() == self._value.casefold()

    def finish(self) -> None:
        """All samples were seen.

        Raises:
            CorpusError: none has the field, or none has a number there that is compared with one.
        """
        if not self._num_present:
            remedy = f"They have: {', '.join(self._fields) or 'none'}."
            raise CorpusError("no sample has this field", where=f"--where {self.name}", got=self._field, remedy=remedy)
        if self._sign in _ORDERS and self._num_no_numbers == self._num_present:
            got = ", ".join(value for value, _ in self._values.most_common(_SHOWN_VALUES))
            raise CorpusError("no sample has a number in this field", where=f"--where {self.name}", got=got)

    def remarks(self) -> list[str]:
        """Samples without the field, or without a number there; what the values are, where none is picked."""
        counts = (
            (self._num_absent, f"without {self._field}"),
            (self._num_no_numbers, f"whose {self._field} is no number"),
        )
        found = [f"{number} {what}" for number, what in counts if number]
        if not self.num_matches:
            values = (f"{value} ({count})" for value, count in self._values.most_common(_SHOWN_VALUES))
            more = ", ..." if len(self._values) > _SHOWN_VALUES else ""
            found.append(f"the values of {self._field} are {', '.join(values)}{more}")
        return found


class OptOut(Criterion):
    """A list of URLs and hashes: a sample is picked by its ``url``, its hash fields, or its image's bytes."""

    def __init__(self, name: str, entries: Iterable[str]) -> None:
        super().__init__(name)
        self._found: set[str] = set()
        self._urls, self._hashes = set[str](), set[str]()
        for entry in entries:
            hashed = entry.strip().lower()
            if _HASH.fullmatch(hashed) and len(hashed) in DIGESTS.values():
                self._hashes.add(hashed)
            elif "://" in entry:
                self._urls.add(_comparable(entry))
            else:
                expected = f"a URL, or one of {', '.join(DIGESTS)} in hexadecimal digits"
                raise CorpusError("neither URL nor hash", where=name, expected=expected, got=entry[:80])
        if not self._urls and not self._hashes:
            raise CorpusError("the list is empty", where=name)
        self._has_url = self._has_hash = False

    @property
    def digests(self) -> set[str]:
        """Names of the digests of images that are asked for."""
        return {name for name, length in DIGESTS.items() if any(len(each) == length for each in self._hashes)}

    def _matches(self, sample: Metadata) -> bool:
        url = sample.get(URL)
        said = {str(value).lower() for name in self.digests if (value := sample.get(name))} | sample.digests
        self._has_url |= isinstance(url, str)
        self._has_hash |= bool(said)
        found = said & self._hashes
        if isinstance(url, str) and (comparable := _comparable(url)) in self._urls:
            found.add(comparable)
        self._found |= found
        return bool(found)

    def finish(self) -> None:
        """All samples were seen.

        Raises:
            CorpusError: URLs are listed and no sample has one, or hashes.
        """
        if self._urls and not self._has_url:
            raise CorpusError("no sample has a field url, and the list has URLs", where=self.name)
        if self._hashes and not self._has_hash:
            remedy = "Give the corpus itself with --tars: then the images' own bytes are looked at."
            expected = "one of " + ", ".join(sorted(self.digests))
            raise CorpusError(
                "no sample has a hash, and the list has", where=self.name, expected=expected, remedy=remedy
            )

    def remarks(self) -> list[str]:
        """How many entries of the list are of no sample."""
        total = len(self._urls) + len(self._hashes)
        return [f"{total - len(self._found)} of {total} entries are of no sample here"]


def _comparable(url: str) -> str:
    """A URL without what makes no difference: case of scheme and host, and the part that no server sees."""
    try:
        split = urlsplit(url.strip())
    except ValueError:
        return url.strip()
    return urlunsplit((split.scheme.lower(), split.netloc.lower(), split.path, split.query, ""))


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).strip()
