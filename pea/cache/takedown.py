"""Samples that were taken down: remembered, so that rebuilding a shard does not bring them back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pea.cache.files import atomic_write, canonical_json, sha256_text
from pea.errors import CacheError

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
        raw = json.loads(path.read_bytes().decode("utf-8"))
        removed: dict[str, list[str]] = raw["removed"]
        if raw["sha256"] == sha256_text(canonical_json(removed)):
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
    removed = dict(sorted(removed.items()))
    text = canonical_json({"removed": removed, "sha256": sha256_text(canonical_json(removed))})
    atomic_write(directory / FILE_NAME, (text + "\n").encode())
