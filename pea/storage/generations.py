"""Records that are published without renames and locks: created if absent, the highest generation counts.

A record is a file ``<name>.<generation>.json``. It is never altered. What it says is replaced by a record of the next
generation; of several who publish the same generation, one wins and the others learn what it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pea.errors import LocationError, LocationMissingError, StorageError
from pea.storage.location import Location

_NAME = re.compile(r"(?P<name>[^/]+)\.(?P<generation>0|[1-9][0-9]{0,8})\.json")
_TRIES = 8


@dataclass(frozen=True)
class RecordName:
    """One published record."""

    name: str
    """What it is about."""
    generation: int
    """0 for the first; the highest counts."""
    place: Location
    """Its file."""


@dataclass(frozen=True)
class Publication:
    """How an attempt to publish ended."""

    won: bool
    """Whether the record is one's own, and counts."""
    record: RecordName
    """The record that counts."""
    data: bytes
    """What it says."""


def publish(folder: Location, name: str, data: bytes, generation: int) -> Publication:
    """Publish a record of a generation, unless one of that or a higher generation is there.

    Everything that the record names has to be durable before.

    Raises:
        LocationError: a name that cannot be one of a record.
        StorageError: the store cannot be read or written.
    """
    place = folder / f"{name}.{generation}.json"
    if not _NAME.fullmatch(place.name) or "/" in name or generation < 0:
        raise LocationError("not the name of a record", where=folder, got=f"{name!r}, generation {generation}")
    try:
        place.create_bytes(data)
    except FileExistsError:
        won = False
    else:
        won = True
    counting = latest(folder, name)
    if counting is None:
        raise StorageError("a record that was published is gone", where=place)
    record, stored = counting
    return Publication(won and record.generation == generation, record, stored)


def latest(folder: Location, name: str) -> tuple[RecordName, bytes] | None:
    """The record of a name that counts, and what it says; None: there is none.

    Raises:
        StorageError: the store cannot be read.
    """
    for _ in range(_TRIES):
        record = counting(folder).get(name)
        if record is None:
            return None
        try:
            return record, record.place.read_bytes()
        except LocationMissingError:
            continue  # replaced by the next generation, and deleted, since it was listed
    raise StorageError("a record is listed but cannot be found", where=folder / name)


def counting(folder: Location) -> Mapping[str, RecordName]:
    """The record of each name in a folder that counts: its highest generation."""
    highest: dict[str, RecordName] = {}
    for record in _records(folder):
        other = highest.setdefault(record.name, record)
        if other.generation < record.generation:
            highest[record.name] = record
    return highest


def superseded(folder: Location) -> list[RecordName]:
    """The records that do not count any more; they may be deleted, the lowest first."""
    highest = counting(folder)
    return sorted(
        (each for each in _records(folder) if each.generation < highest.get(each.name, each).generation),
        key=lambda each: (each.name, each.generation),
    )


def _records(folder: Location) -> list[RecordName]:
    matches = ((entry, _NAME.fullmatch(entry.name)) for entry in folder.entries() if entry.status)
    return [
        RecordName(match["name"], int(match["generation"]), folder / entry.name) for entry, match in matches if match
    ]
