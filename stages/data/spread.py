"""What the subcommands of ``pea data`` do on a Ray cluster: the same to each unit, on whichever node has room."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from data_tools.corpus.captioned import Unit, units_of
from data_tools.tables import say
from pea.config.cache import CacheRunConfig
from pea.corpus.places import Tar
from pea.errors import CorpusError
from stages.cluster.spreading import Work, spread
from stages.data.common import Begin, UnitMaker


@dataclass(frozen=True)
class TablePart:
    """A part of a table, whose rows its worker reads itself."""

    number: int
    """Of the units of all tables."""
    name: str
    source: str


def run_options(arguments: argparse.Namespace) -> CacheRunConfig:
    """What ``--ray`` and ``--actors`` ask for."""
    return CacheRunConfig(
        ray_address=arguments.ray, num_actors=arguments.actors or 1, device=getattr(arguments, "device", "cpu")
    )


def spread_units(arguments: argparse.Namespace, begin: Begin) -> Sequence[tuple[Counter[str], str]]:
    """Make the parts of all units; their counts, and a line about each.

    Raises:
        CorpusError: a tar or a table is damaged, or a part failed for good.
        PeaError: what ``stages.cluster.spreading.spread`` raises.
    """
    units = units_of(arguments.corpus, arguments.rows_per_part)
    pieces = [(unit.name, _for_a_worker(number, unit)) for number, unit in enumerate(units)]
    make = partial(_work, arguments, begin)

    def tell(answer: tuple[Counter[str], str]) -> None:
        if answer[1]:
            say(answer[1])

    return spread(pieces, make, run_options(arguments), place=arguments.out, tell=tell)


def _for_a_worker(number: int, unit: Unit) -> Unit | TablePart:
    """What is sent: of a table not the rows, which would all be in memory at once."""
    if isinstance(unit.where, Tar):
        return replace(unit, where=resolved(unit.where))
    return TablePart(number, unit.name, unit.source)


def resolved(tar: Tar) -> Tar:
    """The same for another working directory."""
    return Tar(tar.name, tar.location.resolve())


def _work(arguments: argparse.Namespace, begin: Begin) -> Work:
    """What an actor does."""
    maker, tables = (
        UnitMaker(arguments, begin),
        _TableUnits(partial(units_of, arguments.corpus, arguments.rows_per_part)),
    )
    return lambda about: maker(tables.unit(about) if isinstance(about, TablePart) else about)


class _TableUnits:
    """Units of tables by number; going forward, no row is read twice."""

    def __init__(self, begin: Callable[[], Iterator[Unit]]) -> None:
        self._begin = begin
        self._units: Iterator[Unit] = iter(())
        self._next: Any = None

    def unit(self, part: TablePart) -> Unit:
        """The unit of a part.

        Raises:
            CorpusError: the table has changed since the parts were given out.
        """
        if self._next is None or part.number < self._next:
            self._units, self._next = self._begin(), 0
        for unit in self._units:
            self._next += 1
            if self._next > part.number:
                if (unit.name, unit.source) == (part.name, part.source):
                    return unit
                break
        raise CorpusError("the table has changed under way", where=part.source, got=part.name)
