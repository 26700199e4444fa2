"""Copies of caches: whole ones file by file, chosen languages and blocks through a writer; both verified and resumable.

A copy is made as a cache is filled: removals and the manifest first, then part by part, each finished by its completion
record alone. So a copy that broke off is a cache with unfinished parts, and copying again makes what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from pea.cache.certificate import FILE_NAME as CERTIFICATE
from pea.cache.garbage import clear_garbage, clear_temporaries
from pea.cache.identity import BLOCKS, SKETCHES, Identity
from pea.cache.manifest import NAME, Manifest, create_manifest, read_manifest
from pea.cache.part import Part
from pea.cache.part_copies import Outcome, copy_part
from pea.cache.part_plan import PartPlan
from pea.cache.publication import generation_name, newest
from pea.cache.reader import Cache
from pea.cache.removals import read_old_list, read_removed, removed_in, restore_removed
from pea.cache.text_statistics import FILE_NAME as STATISTICS_FILE_NAME
from pea.errors import CacheError, IdentityError, LocationMissingError, ShardDamagedError, ShardUnfinishedError
from pea.file_names import CACHE_SUMMARY
from pea.storage.location import Location

_BESIDE = (CERTIFICATE, CACHE_SUMMARY, STATISTICS_FILE_NAME)
_CAPTIONS = "corpus.captions"
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class CopiedCache:
    """What a copy did."""

    num_parts: int
    """Parts that were copied."""
    num_kept: int
    """Parts that were there already."""
    num_unfinished: int
    """Parts that are not finished in the source, and so are not in the copy."""
    num_bytes: int
    """Of the parts that were copied."""


def copy_cache(
    source: Location,
    destination: Location,
    *,
    languages: Collection[str] = (),
    blocks: Collection[str] = (),
    progress: Progress = lambda _done, _total: None,
) -> CopiedCache:
    """Copy a cache, or of its captions and features those of some languages and blocks; again: what is missing.

    The language that drives the teacher is always kept. ``progress`` hears of parts, done and in all.

    Raises:
        CacheError: there is no cache, it lacks a language or block, or samples of it must not come back.
        IdentityError: at the destination is a cache of something else.
        ShardDamagedError: a file of the source is not what its record says; nothing of that part looks finished.
        StorageError: a store cannot be read or written.
    """
    if source.resolve() == destination.resolve():
        raise CacheError("a copy onto itself", where=source)
    cache = Cache(source, read_manifest(source))
    chosen = cache.manifest
    if languages or blocks:
        chosen = choose(cache, languages, blocks)
    clear_temporaries(destination)
    _copy_removals(source, destination)
    if languages or blocks:
        create_manifest(destination, chosen)
    else:
        _copy_manifests(source, destination)
    copy = Cache(destination, chosen)
    originals = {(plan.tar, plan.part): plan for plan in cache.manifest.parts}
    counts = {"copied": 0, "kept": 0, "unfinished": 0, "bytes": 0}
    for done, plan in enumerate(chosen.parts, 1):
        place = cache.record_path(originals[plan.tar, plan.part])
        if languages or blocks:
            what, num_bytes = _copy_chosen(place, originals[plan.tar, plan.part], copy, plan, languages)
        else:
            what, num_bytes = copy_part(cache, copy, plan)
        counts[what] += 1
        counts["bytes"] += num_bytes
        progress(done, len(chosen.parts))
    _copy_what_is_beside(source, destination, whole=not (languages or blocks))
    return CopiedCache(counts["copied"], counts["kept"], counts["unfinished"], counts["bytes"])


def choose(cache: Cache, languages: Collection[str], blocks: Collection[str]) -> Manifest:
    """The manifest of a cache that holds some languages and blocks of another one.

    Raises:
        CacheError: there is no such block.
    """
    old = cache.identity
    unknown = sorted(set(blocks) - set(old.blocks))
    if unknown:
        raise CacheError(
            "no such block in the cache", where=cache.directory, expected=" ".join(old.blocks), got=" ".join(unknown)
        )
    kept = tuple(block for block in old.blocks if not blocks or block in blocks)
    fields = dict(old.fields) | {
        BLOCKS: list(kept),
        SKETCHES: {block: old.fields[SKETCHES][block] for block in kept},
    }
    if languages:
        fields[_CAPTIONS] = _chosen_captions(cache, languages)
    plans = (
        replace(plan, blocks=tuple(block for block in plan.blocks if block in kept)) for plan in cache.manifest.parts
    )
    chosen = tuple(plan for plan in plans if plan.blocks or plan.kind != "blocks")
    return Manifest(Identity(fields), chosen, cache.manifest.cards)


def _chosen_captions(cache: Cache, languages: Collection[str]) -> dict[str, str]:
    """Language -> field of the json, of the chosen ones and of the one that drives the teacher.

    Raises:
        CacheError: the cache was made without one.
    """
    known: Mapping[str, str] = cache.identity.fields.get(_CAPTIONS, {"*": "captions"})
    wanted = sorted({*languages, str(cache.identity.fields.get("corpus.source_language", "en"))})
    if "*" in known:
        return {language: f"{known['*']}.{language}" for language in wanted}
    missing = [language for language in wanted if language not in known]
    if missing:
        raise CacheError(
            "no captions of this language in the cache",
            where=cache.directory,
            expected=" ".join(sorted(known)),
            got=" ".join(missing),
        )
    return {language: known[language] for language in wanted}


def _copy_removals(source: Location, destination: Location) -> None:
    """First of all: what was taken down there must not be found in the copy."""
    if read_old_list(source):
        raise CacheError(
            "a list of removed samples of an older release",
            where=source,
            remedy="Run `pea inspect remove` once with any of these samples; it converts the list.",
        )
    restore_removed(destination, read_removed(source))


def _copy_manifests(source: Location, destination: Location) -> None:
    """Every generation, the oldest first, byte for byte.

    Raises:
        IdentityError: at the destination is something else.
    """
    last = newest(source, NAME) or 0
    for generation in range(last + 1):
        name = generation_name(NAME, generation)
        try:
            data = (source / name).read_bytes()
        except LocationMissingError:
            if generation == last:
                raise
            continue  # only other programs read it, and `check` says that it is gone
        try:
            (destination / name).create_bytes(data)
        except FileExistsError:
            if (destination / name).read_bytes() != data:
                raise _another(destination) from None
    if (newest(destination, NAME) or 0) > last:
        raise _another(destination)


def _another(destination: Location) -> IdentityError:
    return IdentityError("another cache is there", where=destination, remedy="Choose another place for the copy.")


def _copy_chosen(
    place: Location, original: PartPlan, copy: Cache, plan: PartPlan, languages: Collection[str]
) -> tuple[Outcome, int]:
    """One part through a writer, which gives it a store and a record of its own."""
    from pea.cache.takedown import copy_rows  # brings zarr, which is slow to import

    try:
        part = Part(original, place)
    except ShardUnfinishedError:
        return "unfinished", 0
    replaces = None
    try:
        there = Part(plan, copy.record_path(plan))
        if not removed_in(there.record, copy.removed()) and there.record.kept == _kept(part, copy):
            clear_garbage(copy.shard_dir(plan.tar), plan.part)  # who copied it may have been stopped before
            return "kept", 0
        replaces = there.generation
    except (ShardUnfinishedError, ShardDamagedError):
        pass
    kept = {*languages, str(copy.identity.fields.get("corpus.source_language", "en"))} if languages else None
    record = copy_rows(part, copy, plan, replaces=replaces, languages=kept)
    clear_garbage(copy.shard_dir(plan.tar), plan.part)
    return "copied", record.num_bytes


def _kept(part: Part, copy: Cache) -> dict[str, list[str]]:
    gone = removed_in(part.record, copy.removed())
    return {bucket: [key for key in keys if key not in gone] for bucket, keys in part.record.kept.items()}


def _copy_what_is_beside(source: Location, destination: Location, *, whole: bool) -> None:
    """Reports of a whole cache, last; the certificate names its identity, and a chosen copy has another one."""
    for name in _BESIDE if whole else ():
        try:
            (destination / name).write_bytes((source / name).read_bytes())
        except LocationMissingError:
            continue
