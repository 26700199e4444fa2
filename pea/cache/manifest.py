"""The manifest: the identity, and which parts the cache consists of; written before the first shard.

Of parts, see ``pea.cache.part_plan``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pea.cache.differences import as_recorded, check_extends, check_same
from pea.cache.identity import ATTENTION, RETIRED, Identity, without_newer_fields
from pea.cache.manifest_shape import check_manifest
from pea.cache.part_plan import PartPlan
from pea.cache.publication import generation_name, newest, publish, read_newest
from pea.cache.schema import FORMAT_VERSION
from pea.cache.strict_json import parse, read_at_most
from pea.errors import CacheError, IdentityError, LocationMissingError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.location import Location

NAME = "manifest"
FILE_NAME = f"{NAME}.json"
"""The first one of a cache; after growing a later generation counts (``read_manifest``)."""
WITH_QUERIES_VERSION = 2
"""Format version of a manifest since queries were added: releases that would not find them refuse it."""
_MOST_BYTES = 256 << 20
_READ = (FORMAT_VERSION, WITH_QUERIES_VERSION)
_SEAL = ',\n "sha256": "'  # what stands between the manifest and its digest


@dataclass(frozen=True)
class Manifest:
    """What the manifest says."""

    identity: Identity
    parts: tuple[PartPlan, ...]
    """Every part of every tar, in the order of tars and parts."""
    cards: tuple[Mapping[str, Any], ...] = ()
    """Data cards of the corpus; see ``pea.cache.cards``."""

    @property
    def format_version(self) -> int:
        """That a reader must know."""
        grown = any(plan.before_queries or plan.kind == "queries" for plan in self.parts)
        return WITH_QUERIES_VERSION if grown else FORMAT_VERSION

    def to_json(self) -> str:
        """The file's text; its last field is the digest of the rest."""
        groups: dict[str, dict[str, Any]] = {}
        for plan in self.parts:
            entry: dict[str, Any] = {"part": plan.part, "kind": plan.kind, "draws": [plan.draw_start, plan.draw_stop]}
            entry["blocks"] = list(plan.blocks)
            if plan.before_queries:
                entry["before_queries"] = True
            groups.setdefault(canonical_json(entry), {**entry, "tars": []})["tars"].append(plan.tar)
        body = {
            "format": "pea-cache",
            "format_version": self.format_version,
            "identity": dict(self.identity.fields),
            "parts": list(groups.values()),
            **({"cards": [dict(card) for card in self.cards]} if self.cards else {}),
        }
        text = json.dumps(body, indent=1, ensure_ascii=False).removesuffix("\n}")
        return f'{text}{_SEAL}{sha256_text(text)}"\n}}\n'


def new_manifest(identity: Identity, cards: Sequence[Mapping[str, Any]] = ()) -> Manifest:
    """The manifest of a cache that is made at once."""
    plans = (PartPlan(tar, "p000", "whole", 0, identity.draws_per_sample, identity.blocks) for tar in identity.tars)
    return Manifest(identity, tuple(plans), tuple(cards))


def extend_manifest(manifest: Manifest, identity: Identity, *, where: object) -> Manifest:
    """The manifest of the same cache, grown to ``identity``.

    Raises:
        IdentityError: growing would change or lose something.
    """
    old = manifest.identity
    check_extends(old, identity, where=where)
    identity = as_recorded(identity, old)  # parts are bound to the fields as they are recorded
    if RETIRED in old.fields:
        identity = Identity({**identity.fields, RETIRED: old.fields[RETIRED]})
    added = tuple(block for block in identity.blocks if block not in old.blocks)
    queries = old.fields.get(ATTENTION) is None and identity.fields.get(ATTENTION) is not None
    plans = [replace(plan, before_queries=queries or plan.before_queries) for plan in manifest.parts]
    num_parts = Counter(plan.tar for plan in manifest.parts)
    for tar in identity.tars:
        number = num_parts[tar]
        if number == 0:
            plans.append(PartPlan(tar, "p000", "whole", 0, identity.draws_per_sample, identity.blocks))
            continue
        if identity.draws_per_sample > old.draws_per_sample:
            draws = (old.draws_per_sample, identity.draws_per_sample)
            plans.append(PartPlan(tar, f"p{number:03d}", "draws", draws[0], draws[1], identity.blocks))
            number += 1
        if added:
            plans.append(PartPlan(tar, f"p{number:03d}", "blocks", 0, old.draws_per_sample, added))
            number += 1
        if queries:
            plans.append(PartPlan(tar, f"p{number:03d}", "queries", 0, old.draws_per_sample, ()))
    return Manifest(identity, tuple(sorted(plans, key=lambda plan: (plan.tar, plan.part))), manifest.cards)


def read_manifest(directory: str | Path | Location) -> Manifest:
    """Read and verify the manifest of a cache.

    Raises:
        CacheError: there is no cache, or its manifest is damaged or of another format version.
        StorageError: the storage cannot be read.
    """
    directory = Location.parse(directory)
    try:
        path, data = read_newest(directory, NAME, lambda path: (path, read_at_most(path, _MOST_BYTES)))
    except LocationMissingError:
        raise CacheError("no cache here", where=directory, remedy="Fill it with `pea cache`.") from None
    except ValueError as error:
        raise _damaged(directory, error) from None
    raw = _parse(path, data)
    plans = [
        PartPlan(tar, entry["part"], entry["kind"], first, last, tuple(entry["blocks"]), "before_queries" in entry)
        for entry in raw["parts"]
        for first, last in [entry["draws"]]
        for tar in entry["tars"]
    ]
    plans.sort(key=lambda plan: (plan.tar, plan.part))
    return Manifest(Identity(raw["identity"]), tuple(plans), tuple(raw.get("cards", ())))


def _parse(path: Location, data: bytes) -> dict[str, Any]:
    try:
        body, _, tail = data.decode("utf-8").rpartition(_SEAL)
        if tail != f'{sha256_text(body)}"\n}}\n':
            raise ValueError("other bytes than were written")
        raw = parse(body + "}")
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version in _READ:
            check_manifest(raw)
    except ValueError as error:
        raise _damaged(path, error) from None
    if version not in _READ:
        expected = " or ".join(map(str, _READ))
        raise CacheError("a cache of another format version", where=path, expected=expected, got=version)
    return raw  # type: ignore[no-any-return]


def damaged_generations(directory: Location) -> list[Location]:
    """The manifests from before a cache was grown that are missing or damaged; nobody reads them but other programs.

    Raises:
        StorageError: the storage cannot be read.
    """
    places = [directory / generation_name(NAME, number) for number in range(newest(directory, NAME) or 0)]
    return [place for place in places if not _is_intact(place)]


def _is_intact(place: Location) -> bool:
    try:
        _parse(place, read_at_most(place, _MOST_BYTES))
    except (LocationMissingError, ValueError):
        return False
    return True


def _damaged(where: object, got: object) -> CacheError:
    return CacheError("the manifest is damaged", where=where, got=got, remedy="Restore it from a copy.")


def create_or_resume(
    directory: Location, identity: Identity, *, extend: bool, cards: Sequence[Mapping[str, Any]] = ()
) -> Manifest:
    """Write the manifest of a new cache, or make sure that the one that is there fits.

    Of several who grow a cache at the same time, one writes the next generation; the others grow that one. ``cards``:
    of the corpus, for a new cache; one that is there gets them from ``carry_cards``.

    Raises:
        IdentityError: the cache was made from something else.
        CacheError: its manifest is damaged.
        DiskFullError: the manifest cannot be written.
        StorageError: the storage cannot be read or written.
    """
    while True:
        generation = newest(directory, NAME)
        if generation is None:
            manifest = new_manifest(identity, cards)
            if publish_manifest(directory, 0, manifest):
                return manifest
            continue
        manifest = read_manifest(directory)
        if not extend:
            check_same(manifest.identity, without_newer_fields(identity, manifest.identity), where=directory)
            return manifest
        extended = extend_manifest(manifest, identity, where=directory)
        if extended == manifest or publish_manifest(directory, generation + 1, extended):
            return extended


def carry_cards(directory: Location, cards: Sequence[Mapping[str, Any]]) -> None:
    """Let the manifest of a cache carry these cards of its corpus, in its next generation where it has others.

    Raises:
        CacheError: there is no cache, or its manifest is damaged.
        StorageError: the storage cannot be read or written.
    """
    while True:
        generation, manifest = newest(directory, NAME) or 0, read_manifest(directory)
        changed = replace(manifest, cards=tuple(cards))
        if changed == manifest or publish_manifest(directory, generation + 1, changed):
            return


def create_manifest(directory: Location, manifest: Manifest) -> None:
    """Write the manifest of a new cache, or make sure that the one that is there says the same.

    Raises:
        IdentityError: another cache is there.
        CacheError: its manifest is damaged.
        StorageError: the storage cannot be read or written.
    """
    if newest(directory, NAME) is None and publish_manifest(directory, 0, manifest):
        return
    found = read_manifest(directory)
    check_same(found.identity, manifest.identity, where=directory)
    if found.parts != manifest.parts:
        raise IdentityError("another cache is there", where=directory, remedy="Choose another place.")


def publish_manifest(directory: Location, generation: int, manifest: Manifest) -> bool:
    """Create one generation of the manifest. False: somebody else did, or a newer one is there.

    Raises:
        CacheError: it says what no manifest may say.
        StorageError: it cannot be written.
    """
    text = manifest.to_json()
    try:
        check_manifest(parse(text.rpartition(_SEAL)[0] + "}"))
    except ValueError as error:
        raise CacheError("this cannot be cached", where=directory, got=error) from None
    return publish(directory, NAME, generation, text.encode())
