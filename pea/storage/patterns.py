"""Names that stand for many: ``{00000..00099}`` ranges, ``{a,b}`` choices, and ``*``, ``?``, ``[...]``, ``**``."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pea.errors import LocationError
from pea.storage.location import Location

MAX_NAMES = 100_000
_NESTED = re.compile(r"\{[^{}]*\{")
_RANGE = re.compile(r"\{(-?\d{1,15})\.\.(-?\d{1,15})(?:\.\.-?\d+)?\}")
_MAGIC = re.compile(r"[*?\[]")


def expand(pattern: str) -> list[str]:
    """Every name that the braces of a pattern stand for, in order; numbers keep their leading zeros.

    Raises:
        LocationError: unbalanced or nested braces, or too many names.
    """
    if "{" not in pattern and "}" not in pattern:
        return [pattern]
    if _NESTED.search(pattern):
        raise LocationError("braces within braces", where=pattern, expected="as in part-{00000..00099}.tar")
    from braceexpand import braceexpand

    # braceexpand makes each range whole before it combines them, however few are asked for.
    if any(abs(int(first) - int(last)) > MAX_NAMES for first, last in _RANGE.findall(pattern)):
        raise LocationError(f"stands for more than {MAX_NAMES} names", where=pattern)
    try:
        names = list(islice(braceexpand(pattern, escape=False), MAX_NAMES + 1))
    except ValueError:
        raise LocationError("unbalanced braces", where=pattern, expected="as in part-{00000..00099}.tar") from None
    if len(names) > MAX_NAMES:
        raise LocationError(f"stands for more than {MAX_NAMES} names", where=pattern)
    return names


def find(pattern: str) -> list[Location]:
    """The files and objects that a path or URL with braces and wildcards means, each once, sorted.

    A name that exists as it is written is taken so. A name without wildcards has to exist; a pattern may match nothing.

    Raises:
        LocationError: a malformed pattern or URL.
        LocationMissingError: a name without wildcards is not there.
        StorageError: the store cannot be listed.
    """
    Location.parse(pattern)  # an unknown scheme is refused before anything is asked
    found: dict[Location, None] = {}
    for name in expand(pattern):
        found.update(dict.fromkeys(_matches(name)))
    return sorted(found)


def has_wildcards(name: str) -> bool:
    """Whether a path or URL may mean several."""
    return bool(_MAGIC.search(name)) or len(expand(name)) > 1


def _matches(pattern: str) -> list[Location]:
    place = Location.parse(pattern)
    if not _MAGIC.search(place.key):
        place.status()
        return [place]
    if place.is_local:
        if place.exists():
            return [place]
        matches = (Location.parse(Path(name)) for name in glob.glob(place.key, recursive=True))
        return [match for match in matches if not match.is_folder()]
    segments = place.key.split("/")
    fixed = next(index for index, segment in enumerate(segments) if _MAGIC.search(segment))
    folder = Location(place.scheme, place.bucket, "/".join(segments[:fixed]), place.options)
    entries = folder.entries(recursive=segments[fixed:] != segments[-1:] or segments[-1] == "**")
    return [folder / each.name for each in entries if each.status and _fits(each.name.split("/"), segments[fixed:])]


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path fits a pattern as ``glob`` takes it on a disk: ``*`` in one segment, nothing hidden by itself."""
    if not patterns or not names:
        return not patterns and not names
    if patterns[0] != "**":
        return _segment_fits(names[0], patterns[0]) and _fits(names[1:], patterns[1:])
    if len(patterns) > 1 and _fits(names, patterns[1:]):
        return True
    if names[0].startswith("."):
        return False
    return _fits(names[1:], patterns) or (len(patterns) == 1 and len(names) == 1)


def _segment_fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
