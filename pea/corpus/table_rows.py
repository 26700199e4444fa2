"""What every kind of table answers with: rows, bad rows, and errors that name the columns that are there."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pea.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    where: str
    """The file."""
    number: int
    """Line of a text file at which it begins, or row of another, from 1."""
    values: Mapping[str, Any]
    """Column -> value; None, or no such name: missing."""

    def get(self, name: str) -> Any:
        """A value, None where it is missing; ``a.b`` is ``b`` within ``a`` where no column has that name."""
        if name in self.values:
            return self.values[name]
        found: Any = self.values
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return None if isinstance(found, float) and math.isnan(found) else found

    def text(self, name: str) -> str | None:
        """A value as text, numbers as they are written; None where it is missing or nothing but spaces.

        Raises:
            CorpusError: it is no text: bytes, a list, an object.
        """
        value = self.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, str | int | float):
            return str(value)
        raise CorpusError("not a text", where=self, got=f"{name}: a {type(value).__name__}")

    def __str__(self) -> str:
        return f"{self.where}:{self.number}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used."""

    where: str
    """The file."""
    number: int
    """Line at which it begins, from 1."""
    problem: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"{self.where}:{self.number}"


class TableFile(Protocol):
    """One file of a table."""

    where: str
    columns: tuple[str, ...]

    def rows(self, columns: Collection[str]) -> Iterator[Row | BadRow]:
        """Every row; ``columns``: those that are needed, empty for all."""

    def require(self, columns: Sequence[str]) -> None:
        """Raise CorpusError unless the columns are there."""


def column_of(name: str, columns: Collection[str]) -> str:
    """The column in which a dotted name is looked up."""
    return name if name in columns else name.partition(".")[0]


def require_columns(where: str, wanted: Sequence[str], columns: Collection[str]) -> None:
    """Make sure that columns are there.

    Raises:
        CorpusError: one is not; the message names those that are.
    """
    missing = [name for name in wanted if column_of(name, columns) not in columns]
    if missing:
        shown = ", ".join(list(columns)[:40]) + (", ..." if len(columns) > 40 else "")
        raise CorpusError(
            f"no column {', '.join(missing)}", where=where, expected=f"one of {shown}", remedy="Names are exact."
        )


def explicit(value: Any) -> Any:
    """A value, with None for what stands for none."""
    return None if isinstance(value, float) and math.isnan(value) else value
