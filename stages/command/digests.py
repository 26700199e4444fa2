"""Digests of files and folders by content, remembered while size and modification time stay the same."""

from __future__ import annotations

import glob
import json
from pathlib import Path

from pea.storage.digests import canonical_json, sha256_file, sha256_text
from pea.storage.durable import write_text

ABSENT = "absent"


class Digests:
    """Digests; what has been read is remembered in a file."""

    def __init__(self, memory: Path) -> None:
        self._path = memory
        try:
            self._known: dict[str, list[object]] = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def of(self, pattern: str) -> str:
        """Digest of a file, of every file below a folder by relative name, or of all that a glob pattern matches."""
        before = dict(self._known)
        matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        found = {str(file): self._file(file) for match in matches for file in _files(match)}
        if self._known != before:
            write_text(self._path, json.dumps(self._known, indent=0))
        return sha256_text(canonical_json(found)) if found else ABSENT

    def _file(self, path: Path) -> str:
        status = path.stat()
        stamp: list[object] = [status.st_size, status.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known[:2] != stamp:
            known = self._known[str(path)] = [*stamp, sha256_file(path)]
        return str(known[2])


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
