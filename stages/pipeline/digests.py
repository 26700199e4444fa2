"""Digests of files, folders, caches and adapters by content; a file is read again only when size or times change."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pea.cache.content import cache_content, is_cache
from pea.errors import CacheError, LocationMissingError
from pea.file_names import MODEL_CONFIG
from pea.storage.digests import canonical_json, sha256_file, sha256_text
from pea.storage.durable import TEMPORARY, write_text
from pea.storage.location import Location

ABSENT = "absent"
_SETTLED_NS = 2_000_000_000
"""A file that changed so recently may change again without another time stamp."""


@dataclass(frozen=True)
class Content:
    """What is at a place."""

    digest: str
    problems: tuple[str, ...] = ()
    """Known damage: files that a cache's records name and that are not there, or a damaged manifest."""


class Digests:
    """Digests of content: a file's bytes, a folder's files by name, a cache's records, an adapter's config and weights.

    Reports that a cache or an adapter carries beside its content do not count.
    """

    def __init__(self, memory: Path) -> None:
        """``memory``: file in which digests of files are remembered while size and times stay the same."""
        self._path = memory
        try:
            known = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[Any]] = known if isinstance(known, dict) else {}

    def of(self, pattern: str) -> Content:
        """Content of all that a glob pattern matches, or of what is at a URL.

        Raises:
            StorageError, OSError: something cannot be read.
        """
        before = dict(self._known)
        if Location.parse(pattern).is_local:
            places = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
            found = {name: content for place in places for name, content in self._at(place)}
        else:
            found = dict(_at_url(Location.parse(pattern)))
        if self._known != before:
            write_text(self._path, json.dumps(self._known, indent=0))
        if not found:
            return Content(ABSENT)
        digest = sha256_text(canonical_json({name: content.digest for name, content in found.items()}))
        return Content(digest, tuple(problem for content in found.values() for problem in content.problems))

    def _at(self, place: Path) -> Iterator[tuple[str, Content]]:
        """Everything at and below a place, in its largest pieces."""
        if not place.exists():  # a link to nowhere; `nothing/**` matches `nothing/`
            return
        if not place.is_dir():
            yield str(place), Content(self._file(place))
        elif is_cache(Location.parse(place)):
            yield str(place), _cache(Location.parse(place))
        else:
            names = sorted(name for name in os.listdir(place) if TEMPORARY not in name)
            if _is_adapter(place):
                names = [name for name in names if name == MODEL_CONFIG or name.endswith(".safetensors")]
            for name in names:
                yield from self._at(place / name)

    def _file(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self._known.get(str(path))
        if isinstance(known, list) and known[:-1] == stamp:
            return str(known[-1])
        digest = sha256_file(path)
        if time.time_ns() - max(stamp[1:]) > _SETTLED_NS:
            self._known[str(path)] = [*stamp, digest]
        return digest


def _is_adapter(folder: Path | Location) -> bool:
    try:
        config = json.loads((Location.parse(folder) / MODEL_CONFIG).read_text())
    except (LocationMissingError, OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("_class_name") == "PEA"


def _cache(folder: Location) -> Content:
    try:
        found = cache_content(folder)
    except CacheError as error:  # the manifest, or the list of removals
        return Content(sha256_text(str(error)), (str(error),))
    return Content(found.digest, found.problems)


def _at_url(place: Location) -> Iterator[tuple[str, Content]]:
    """A cache, an object, or the objects below; of objects, what the store itself says of their content."""
    if is_cache(place):
        yield str(place), _cache(place)
        return
    entries = [entry for entry in place.entries(recursive=True) if entry.status]
    if _is_adapter(place):
        entries = [each for each in entries if "/" not in each.name]
        entries = [each for each in entries if each.name == MODEL_CONFIG or each.name.endswith(".safetensors")]
    below = {str(place / entry.name): entry.status for entry in entries if entry.status}
    if not below and place.exists():
        below = {str(place): place.status()}
    for name, status in below.items():
        yield name, Content(sha256_text(f"{status.size_bytes} {status.version}"))
