"""Where the tars of a corpus are, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pea.corpus.sidecars import TAR_ENDING
from pea.errors import CorpusError, LocationMissingError
from pea.plurals import count_of
from pea.storage.location import Location
from pea.storage.patterns import find

_CORRECT = "Correct the path or pattern (in a configuration: corpora.*.tars), or run the stage that writes them."
_NAMED = 20
"""Missing tars that one error names."""
_PREFIX = re.compile(r"([A-Za-z0-9_-]{1,64})::(.+)", re.DOTALL)


@dataclass(frozen=True)
class Tar:
    """A tar and what it is called, which names its samples for ever."""

    name: str
    """Its prefix, if it has one, with ``-``, and its file name without ``.tar``, ``.tar.gz`` or ``.tgz``."""
    location: Location

    def __str__(self) -> str:
        return str(self.location)


Place = str | Path | Location | Tar
"""A tar, or where one is that is called as its file is."""


def location_of(place: Place) -> Location:
    """Where a tar is."""
    return place.location if isinstance(place, Tar) else Location.parse(place)


def tar_name(place: Place) -> str:
    """What a tar is called."""
    return place.name if isinstance(place, Tar) else TAR_ENDING.sub("", Location.parse(place).name)


def sample_id(tar: str, key: str) -> str:
    """The id of a sample, from which its draws follow."""
    return f"{tar}/{key}"


def expand_tars(patterns: Sequence[str]) -> list[Tar]:
    """The tars that paths, folders, URLs and patterns name, sorted. What exists is never taken for a pattern.

    ``PREFIX::PATTERN`` puts ``PREFIX-`` before the names of its tars, so that two corpora whose tars are all called
    00000.tar, 00001.tar, ... can be one.

    Raises:
        CorpusError: patterns match nothing, each of which is named, or two tars have one name.
        LocationError: a malformed pattern or URL.
        StorageError: a store cannot be listed.
    """
    found: dict[str, Tar] = {}
    missing = list[CorpusError]()
    for pattern in patterns:
        try:
            prefix, matches = _matches(pattern)
        except CorpusError as error:
            missing.append(error)
            continue
        for location in matches:
            tar = Tar(prefix + tar_name(location), location)
            other = found.setdefault(tar.name, tar)
            if other.location.resolve() != location.resolve():
                raise CorpusError(
                    f"two tars are named {tar.name}",
                    got=f"{other} and {tar}",
                    remedy="Tell them apart by a prefix in corpora.*.tars: `NAME::PATTERN`.",
                )
    if len(missing) > 1:
        raise CorpusError(
            f"{count_of(len(missing), 'pattern')} match no tar", got=" | ".join(map(str, missing[:_NAMED]))
        )
    if missing:
        raise missing[0]
    return [found[name] for name in sorted(found)]


def _matches(pattern: str) -> tuple[str, list[Location]]:
    split = _PREFIX.fullmatch(pattern)
    if split and not Location.parse(pattern).exists():
        prefix, pattern = f"{split[1]}-", split[2]
    else:
        prefix = ""
    literal = Location.parse(pattern)
    if literal.is_local and literal.is_folder():
        return prefix, _in_folder(literal)
    try:
        found = [literal] if literal.is_local and literal.local_path.is_file() else find(pattern)
        missing = None
    except LocationMissingError as error:
        found, missing = [], error
    if not found and not literal.is_local and literal.is_folder():  # asked last: not everybody may list a bucket
        return prefix, _in_folder(literal)
    if not found:
        raise CorpusError("no such tar", where=pattern, got=missing, remedy=_CORRECT)
    return prefix, found


def _in_folder(folder: Location) -> list[Location]:
    """The tars that lie in a folder; hidden ones are none."""
    if folder.is_local:  # a link to nothing is one of them, so that it is missed
        files = [path.name for path in folder.local_path.iterdir() if not path.is_dir()]
    else:
        files = [entry.name for entry in folder.entries() if entry.status]
    found = sorted(folder / name for name in files if TAR_ENDING.search(name) and not name.startswith("."))
    if not found:
        raise CorpusError("no tar in this folder", where=folder, remedy=_CORRECT)
    return found
