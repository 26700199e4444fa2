"""The list of samples that were taken down: remembered, so that rebuilding a shard does not bring them back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pea.errors import CacheError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import atomic_write

FILE_NAME = "removed.json"


def removed_keys(directory: Path, tar: str) -> frozenset[str]:
    """Keys of one tar that were taken down.

    Raises:
        CacheError: the list is damaged.
    """
    return frozenset(read_removed(directory).get(tar, ()))


def read_removed(directory: Path) -> dict[str, list[str]]:
    """Tar -> keys that were taken down.

    Raises:
        CacheError: the list is damaged.
    """
    path = directory / FILE_NAME
    try:
        text = path.read_bytes().decode("utf-8")
        removed: dict[str, list[str]] = json.loads(text)["removed"]
        if text == _to_text(removed):
            return removed
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CacheError("the list of removed samples is damaged", where=path, remedy="Restore it from a copy.")


def add_removed(directory: Path, tar: str, keys: Iterable[str]) -> None:
    """Remember keys as taken down, durably."""
    removed = read_removed(directory)
    removed[tar] = sorted({*removed.get(tar, ()), *keys})
    atomic_write(directory / FILE_NAME, _to_text(removed).encode())


def _to_text(removed: dict[str, list[str]]) -> str:
    return canonical_json({"removed": removed, "sha256": sha256_text(canonical_json(removed))}) + "\n"
