"""What captions lie beside each tar of a corpus: read once before the manifest is made, and remembered.

It holds as long as the tables have the version that their storage gives; see ``stages.cluster.tar_facts``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pea.corpus.caption_tables import CaptionTables
from pea.storage.digests import sha256_text
from pea.storage.durable import write_text

FILE_NAME = "caption_facts.json"
_SETTLED_S = 2.0
"""A table that changed less than this before it was read may change again without showing it."""


class CaptionFacts:
    """Digests of the captions beside tars, remembered in one folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._known = _read(self._path)
        self._now: dict[str, str | None] = {}
        """What holds for the rest of this run."""

    def digest(self, tables: CaptionTables, tar: str, language: str) -> str | None:
        """As ``CaptionTables.digest_of``.

        Raises:
            CorpusError: a table cannot be read.
            StorageError: a table cannot be looked at.
        """
        versions = [(str(place), place.status()) for place in tables.places(tar)]
        name = sha256_text("\0".join([language, *(f"{place} {status.version}" for place, status in versions)]))
        if name in self._now:
            return self._now[name]
        if name not in self._known:
            found = tables.digest_of(tar, language)
            if all(time.time() - status.modified_s >= _SETTLED_S for _, status in versions):
                self._known[name] = found
            self._now[name] = found
        return self._now.setdefault(name, self._known.get(name))

    def save(self) -> None:
        """Write what will surely hold, for the next run."""
        if self._known:
            write_text(self._path, json.dumps(self._known, indent=0, sort_keys=True))


def _read(path: Path) -> dict[str, str | None]:
    """What was remembered; nothing, if that cannot be read: it is only work that is saved."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: each for name, each in found.items() if each is None or isinstance(each, str)}
    except (OSError, ValueError, RecursionError, AttributeError):
        return {}
