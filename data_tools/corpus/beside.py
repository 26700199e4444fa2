"""Captions that lie in a table beside the tars, found again by the sample that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from data_tools.corpus.captioned import ALL_CAPTIONS, Captioned, Unit, units_of
from pea.errors import CorpusError
from pea.storage.location import Location
from pea.storage.patterns import has_wildcards

Key = tuple[str, str]
"""Name of the tar, and key."""
_ENDINGS = ("jsonl", "parquet")
_ROWS_AT_ONCE = 100_000


class BesideTable:
    """A table of captions. Of a folder with a part for each tar, only the part of the tar in question is read."""

    def __init__(self, place: str, fields: Mapping[str, str] = ALL_CAPTIONS) -> None:
        """Raises CorpusError where there is no table."""
        self._place, self._fields = place, fields
        found = Location.parse(place)
        if not (has_wildcards(place) or found.exists() or found.is_folder()):
            remedy = "Correct the path, or make it: `pea data translate`."
            raise CorpusError("no such table of captions", where=place, remedy=remedy)
        next(units_of([place], 1))

    def of(self, unit: Unit) -> Mapping[Key, Captioned]:
        """The rows that may belong to a unit's samples.

        Raises:
            CorpusError: a table is damaged.
        """
        folder = Location.parse(self._place)
        for ending in _ENDINGS:
            part = folder / f"{unit.name}.{ending}"
            if folder.is_folder() and part.exists():
                return _rows(str(part), self._fields)
        return self._all

    @cached_property
    def _all(self) -> Mapping[Key, Captioned]:
        return _rows(self._place, self._fields)


def _rows(place: str, fields: Mapping[str, str]) -> dict[Key, Captioned]:
    rows = (row for unit in units_of([place], _ROWS_AT_ONCE) for row in unit.rows(fields))
    return {(row.tar, row.key): row for row in rows if isinstance(row, Captioned)}


def joined(sample: Captioned, beside: Captioned | None) -> Captioned:
    """A sample with the captions that lie beside it; where both have a language, the sample's own stays."""
    if beside is None:
        return sample
    new = {language: text for language, text in beside.captions.items() if language not in sample.captions}
    origins = {language: text for language, text in beside.provenance.items() if language in new}
    return replace(
        sample,
        captions={**sample.captions, **new},
        provenance={**sample.provenance, **origins},
        scores={**beside.scores, **sample.scores},
    )
