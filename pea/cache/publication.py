"""Which record of a part, or of the manifest, counts: records are created and never changed, the newest one counts.

``p000.json`` is the first generation of a record, ``p000.1.json`` the second, and so on; a file of format 1 is thus a
first generation. Each is made by *create if absent*, so of several writers one wins. What no counting record names is
garbage, which nobody sees.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from pea.errors import LocationExistsError, LocationMissingError, ShardUnfinishedError
from pea.storage.failures import translated
from pea.storage.location import Location

Content = TypeVar("Content")

_NAME = re.compile(r"([A-Za-z0-9_]+)(?:\.([1-9][0-9]{0,8}))?\.json")


def generation_name(name: str, generation: int) -> str:
    """The file of one generation of a record."""
    return f"{name}.{generation}.json" if generation else f"{name}.json"


def names_in(folder: Location) -> list[str]:
    """Names of what is in a folder; none where it is not there.

    Raises:
        StorageError: it cannot be listed.
    """
    if not folder.is_local:
        return [entry.name for entry in folder.entries()]
    with translated("cannot list", folder):  # thousands of times: the state of each file would cost more than its name
        try:
            return os.listdir(folder.local_path)
        except (FileNotFoundError, NotADirectoryError):
            return []


def generations(names: Iterable[str], name: str | None = None) -> dict[str, list[int]]:
    """Record -> its generations, the newest last, among the names in a folder; ``name``: of this record only."""
    found: dict[str, list[int]] = {}
    for each in names:
        match = _NAME.fullmatch(each)
        if match and name in (None, match.group(1)):
            found.setdefault(match.group(1), []).append(int(match.group(2) or 0))
    return {each: sorted(numbers) for each, numbers in found.items()}


def newest(folder: Location, name: str) -> int | None:
    """The generation of a record that counts; None: there is none.

    Raises:
        StorageError: the folder cannot be listed.
    """
    return generations(names_in(folder), name).get(name, [None])[-1]


def read_newest(folder: Location, name: str, read: Callable[[Location], Content]) -> Content:
    """What ``read`` makes of the generation of a record that counts; of the first one where there is none.

    Raises:
        LocationMissingError: there is none, or none stays for long enough.
    """
    generation = newest(folder, name)
    while True:
        try:
            return read(folder / generation_name(name, generation or 0))
        except (LocationMissingError, ShardUnfinishedError):
            before, generation = generation, newest(folder, name)
            if before == generation:
                raise


def publish(folder: Location, name: str, generation: int, data: bytes) -> bool:
    """Create one generation of a record, durably. False: somebody else did, or a newer one is there.

    Raises:
        StorageError: it cannot be written.
    """
    place = folder / generation_name(name, generation)
    try:
        place.create_bytes(data)
    except LocationExistsError:
        return False
    return newest(folder, name) == generation  # a slow writer creates what others have made and replaced since
