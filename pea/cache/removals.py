"""Samples that were taken down: remembered by digest, so that rebuilding a shard does not bring them back.

Each is an object of its own, ``removed/<digest of tar and key>.json``, created if absent: removals at the same time
lose nothing, and no key is kept in clear. A list of format 1 (``removed.json``, keys in clear) is still read, and
converted by the next removal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pea.cache import strict_json as must
from pea.cache.completion import CompletionRecord
from pea.cache.publication import names_in
from pea.corpus.tars import sample_id
from pea.errors import CacheError, LocationExistsError, LocationMissingError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import TEMPORARY
from pea.storage.location import Location

FOLDER = "removed"
FILE_NAME = "removed.json"
"""Of format 1."""
REASON = "removed"
"""Of a dropped sample that was taken down; its key is a digest."""
_MOST_BYTES = 64 << 20
_PREFIX, _SUFFIX = "sha256-", ".json"
_name = must.text(128, f"{_PREFIX}[0-9a-f]{{64}}")
_list = must.fields({"removed": must.map_of(must.plain_name, must.list_of(must.text(4096))), "sha256": must.text(64)})


def removal_name(tar: str, key: str) -> str:
    """What stands for the key of a sample that was taken down."""
    return _PREFIX + sha256_text(sample_id(tar, key))


def read_removed(directory: Location) -> frozenset[str]:
    """The ``removal_name`` of every sample that was taken down.

    Raises:
        CacheError: a list or an object of removals is damaged.
        StorageError: the storage cannot be read.
    """
    names = set()
    for each in _published(directory):
        name = each.removesuffix(_SUFFIX)
        try:
            _name(name, "name")
        except ValueError as error:
            raise CacheError("not a removal", where=directory / FOLDER / each, got=error, remedy="Delete it.") from None
        names.add(name)
    old = read_old_list(directory)
    return frozenset(names | {removal_name(tar, key) for tar, keys in old.items() for key in keys})


def damaged_removals(directory: Location) -> list[Location]:
    """Objects of removals that do not hold what was written; their names count all the same.

    Raises:
        StorageError: the storage cannot be read.
    """
    places = ((directory / FOLDER / each, each.removesuffix(_SUFFIX)) for each in _published(directory))
    return [place for place, name in places if place.read_bytes(0, _MOST_BYTES) != _to_bytes(name)]


def _published(directory: Location) -> list[str]:
    return sorted(name for name in names_in(directory / FOLDER) if TEMPORARY not in name)


def read_old_list(directory: Location) -> dict[str, list[str]]:
    """Tar -> keys, of the list of format 1; empty where there is none.

    Raises:
        CacheError: it is damaged.
        StorageError: the storage cannot be read.
    """
    path = directory / FILE_NAME
    try:
        text = must.read_at_most(path, _MOST_BYTES).decode("utf-8")
        document: Any = must.parse(text)
        _list(document, "removed")
        if text != _to_text(document["removed"]):
            raise ValueError("other bytes than were written")
    except LocationMissingError:
        return {}
    except ValueError as error:
        remedy = "Restore it from a copy."
        raise CacheError("the list of removed samples is damaged", where=path, got=error, remedy=remedy) from None
    removed: dict[str, list[str]] = document["removed"]
    return removed


def add_removed(directory: Location, tar: str, keys: Iterable[str]) -> None:
    """Remember keys as taken down, durably; those of an old list with them, which then goes.

    Raises:
        DiskFullError: no room.
        StorageError: the storage cannot be read or written.
    """
    old = read_old_list(directory)
    names = {removal_name(tar, key) for key in keys}
    names |= {removal_name(other, key) for other, others in old.items() for key in others}
    restore_removed(directory, names)
    if old:
        (directory / FILE_NAME).delete()


def restore_removed(directory: Location, names: Iterable[str]) -> None:
    """Remember samples as taken down by what stands for them, as a copy of their cache needs it.

    Raises:
        DiskFullError: no room.
        StorageError: the storage cannot be read or written.
    """
    present = set(names_in(directory / FOLDER))
    for name in sorted(names):
        if name + _SUFFIX not in present:
            _create(directory / FOLDER / (name + _SUFFIX), name)


def removed_in(record: CompletionRecord, removed: frozenset[str]) -> set[str]:
    """Keys in a record, kept or dropped, that must not be there any more."""
    kept = (key for keys in record.kept.values() for key in keys)
    dropped = (key for key, reason, _ in record.dropped if reason != REASON or key not in removed)
    return {key for key in (*kept, *dropped) if removed and removal_name(record.tar, key) in removed}


def _create(place: Location, name: str) -> None:
    try:
        place.create_bytes(_to_bytes(name))
    except LocationExistsError:
        return  # somebody else takes the same sample down


def _to_bytes(name: str) -> bytes:
    return (canonical_json({REASON: name}) + "\n").encode()


def _to_text(removed: dict[str, list[str]]) -> str:
    return canonical_json({"removed": removed, "sha256": sha256_text(canonical_json(removed))}) + "\n"
