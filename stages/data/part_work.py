"""What a subcommand of ``pea data`` does to each unit of a corpus, here or on an actor of a cluster."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_tools.corpus.captioned import Unit
from data_tools.corpus.parts import PartFolder
from pea.plurals import count_of
from pea.storage.location import Location

Made = tuple[Sequence[Mapping[str, Any]], Counter[str]]


@dataclass(frozen=True)
class PartWork:
    """What a command does to each unit of a corpus."""

    settings: Mapping[str, Any]
    """All that decides what comes of it."""
    make: Callable[[Unit], Made]
    """The rows of a unit, and its counts."""


Begin = Callable[[argparse.Namespace], PartWork]
"""A function of a module: loads what the work needs."""


class UnitMaker:
    """Makes the parts of units, one after the other."""

    def __init__(self, arguments: argparse.Namespace, begin: Begin) -> None:
        """Raises ConfigError where the folder holds something else, and what ``begin`` does."""
        self._work = begin(arguments)
        self._folder = PartFolder(Location.parse(arguments.out), self._work.settings, arguments.format)

    def __call__(self, unit: Unit) -> tuple[Counter[str], str]:
        """The counts of a unit's part, and a line about it; empty where it was there already."""
        counts = self._folder.finished(unit.name, unit.source)
        if counts is not None:
            return counts, ""
        rows, counts = self._work.make(unit)
        self._folder.publish(unit.name, unit.source, rows, counts)
        return counts, f"{self._folder.part(unit.name)}: {count_of(len(rows), 'row')}"
