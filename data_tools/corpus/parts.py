"""A folder, or a URL, in which each unit of a corpus leaves one part, and which a killed run goes on filling.

A part is a table (JSONL or Parquet) that appears whole or not at all. What it was made of and how many rows had what
outcome stands in a file beside it that is written first; so a part that is there is finished. ``settings.json`` says
what was done: other settings are refused, never mixed.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal

from pea.errors import ConfigError, LocationExistsError, LocationMissingError, StorageError
from pea.storage.durable import TEMPORARY
from pea.storage.location import Location

Format = Literal["jsonl", "parquet"]
SETTINGS, COUNTS = "settings.json", ".counts.json"
_DATE = "begun"


class PartFolder:
    """The parts of one corpus, done to in one way."""

    def __init__(self, place: Location, settings: Mapping[str, Any], form: Format = "jsonl") -> None:
        """Begin, or go on.

        Raises:
            ConfigError: the folder holds something else.
        """
        self.place, self._form = place, form
        asked = json.loads(json.dumps({**settings, "format": form}))
        try:
            found = json.loads((place / SETTINGS).read_text())
        except LocationMissingError:
            found = self._begin(asked)
        except ValueError as error:
            raise ConfigError(
                "not readable", where=place / SETTINGS, got=error, remedy="Choose another --out."
            ) from None
        self.settings: dict[str, Any] = found
        """What was done, and the day on which that was begun."""
        differing = [name for name in {**found, **asked} if name != _DATE and found.get(name) != asked.get(name)]
        if differing:
            raise ConfigError(
                "the folder holds the result of other settings",
                where=place,
                expected="; ".join(f"{name}: {found.get(name)}" for name in differing),
                got="; ".join(f"{name}: {asked.get(name)}" for name in differing),
                remedy="Choose another --out, or ask for the same.",
            )

    def _begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        begun = {**asked, _DATE: date.today().isoformat()}  # noqa: DTZ011 (the day of who reads it)
        entries = self.place.entries() if self.place.is_folder() else ()
        is_empty = all(TEMPORARY in entry.name for entry in entries)
        if not is_empty and not (self.place / SETTINGS).exists():  # else another run of the same command was first
            raise ConfigError("the folder is not empty", where=self.place, remedy="Choose another --out.")
        try:
            (self.place / SETTINGS).create_bytes((json.dumps(begun, indent=1, ensure_ascii=False) + "\n").encode())
        except LocationExistsError:  # another run of the same command was first
            return dict(json.loads((self.place / SETTINGS).read_text()))
        return begun

    def part(self, unit: str) -> Location:
        """Where the part of a unit is, or will be."""
        return self.place / f"{unit}.{self._form}"

    def finished(self, unit: str, source: str) -> Counter[str] | None:
        """The counts of a finished part; None where it is to be made.

        Raises:
            ConfigError: it was made of something else than now lies there.
        """
        if not self.part(unit).exists():
            return None
        try:
            record = json.loads((self.place / f"{unit}{COUNTS}").read_text())
            was, counts = (
                record["source"],
                Counter({str(name): int(number) for name, number in record["counts"].items()}),
            )
        except (StorageError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if was != source:
            raise ConfigError(
                "the part was made of something else",
                where=self.part(unit),
                expected=was,
                got=source,
                remedy="Delete the part to have it made again, or choose another --out.",
            )
        return counts

    def publish(self, unit: str, source: str, rows: Sequence[Mapping[str, Any]], counts: Mapping[str, int]) -> None:
        """Write the part of a unit."""
        record = {"source": source, "counts": dict(sorted(counts.items()))}
        (self.place / f"{unit}{COUNTS}").write_text(json.dumps(record, ensure_ascii=False) + "\n")
        self.part(unit).write_bytes(_parquet(rows) if self._form == "parquet" else _jsonl(rows))


def _jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()
