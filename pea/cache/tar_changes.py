"""A tar that is replaced or retired as a whole, and a cache that holds nothing and so binds nobody.

The manifest is never changed in place: a change is its next generation. What was made from the former tar is withdrawn
before it (``replace_tar``), or belongs to nobody after it (``retire_tar``). A crash in between leaves an unfinished
part, or a folder that no manifest names; the same command ends the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pea.cache.certificate import read_certificate, write_certificate
from pea.cache.completion import read_summary, record_to_bytes, withdrawal
from pea.cache.garbage import clear_garbage
from pea.cache.identity import RETIRED, TARS, Identity, retired_tars
from pea.cache.manifest import Manifest, new_manifest, publish_manifest, read_manifest
from pea.cache.part_plan import part_digest
from pea.cache.publication import generations, names_in, newest, publish
from pea.cache.reader import Cache
from pea.corpus.tars import TarIdentity
from pea.errors import CacheError, IdentityError, LeaseHeldError, PeaError, ShardUnfinishedError
from pea.storage.leases import living_below
from pea.storage.location import Location


def replace_tar(directory: Location, tar: TarIdentity) -> int | None:
    """Let another file take the place of a tar: its samples are made again by the next run.

    Returns how many samples are given up; None: the cache was made from this very file.

    Raises:
        CacheError: the cache has no such tar.
        LeaseHeldError: somebody is writing its shard.
        StorageError: the storage cannot be read or written.
    """
    cache = _open(directory, tar.name)
    if tar.name not in cache.identity.tars:
        raise _no_such_tar(cache, tar.name)
    _refuse_busy(cache, tar.name)
    same = cache.identity.tars[tar.name] == tar
    changed = _with_fields(cache.identity, tars={**cache.identity.tars, tar.name: tar})
    num_samples = _withdraw(cache, changed, tar.name)
    if not same:
        _publish(cache, replace(cache.manifest, identity=changed))
        num_samples = (num_samples or 0) + (_withdraw(cache, changed, tar.name) or 0)  # a slow writer of the former one
    clear_garbage(cache.shard_dir(tar.name))
    _forget(cache, tar.name)
    return None if same and num_samples is None else num_samples or 0


def retire_tar(directory: Location, name: str) -> int:
    """Take a tar out of the cache with all that was made from it, for good. Returns how many samples are gone.

    Raises:
        CacheError: the cache has no such tar, or no other.
        LeaseHeldError: somebody is writing its shard.
        StorageError: the storage cannot be read or written.
    """
    cache = _open(directory, name)
    _refuse_busy(cache, name)
    num_samples = 0
    if name in cache.identity.tars:
        left = {other: tar for other, tar in cache.identity.tars.items() if other != name}
        if not left:
            raise CacheError("no other tar would be left", where=directory, got=name, remedy="Delete the whole cache.")
        num_samples = max((summary["num_samples"] for summary in _summaries(cache, name).values()), default=0)
        identity = _with_fields(cache.identity, tars=left, retired={*retired_tars(cache.identity), name})
        parts = tuple(plan for plan in cache.manifest.parts if plan.tar != name)
        _publish(cache, replace(cache.manifest, identity=identity, parts=parts))
    elif name not in retired_tars(cache.identity):
        raise _no_such_tar(cache, name)
    cache.shard_dir(name).delete_tree()
    _forget(cache, name)
    return num_samples


def create_or_begin_anew(
    directory: Location, identity: Identity, *, extend: bool = False, cards: Sequence[Mapping[str, Any]] = ()
) -> tuple[Cache, bool]:
    """The cache to fill, and whether one that was made from something else was begun anew, as it held no sample.

    Raises:
        IdentityError: it was made from something else, and holds samples or is being written.
        CacheError: its manifest is damaged.
        StorageError: the storage cannot be read or written.
    """
    try:
        return Cache.create_or_resume(directory, identity, extend=extend, cards=cards), False
    except IdentityError:
        cache = Cache(directory, read_manifest(directory))
        if not _binds_nobody(cache):
            raise
    for name in cache.identity.tars:
        _withdraw(cache, None, name)
    _publish(cache, new_manifest(identity, cards))
    for folder in names_in(directory / "shards"):
        if folder in identity.tars:
            clear_garbage(directory / "shards" / folder)
        else:
            (directory / "shards" / folder).delete_tree()
    return Cache.create_or_resume(directory, identity), True


def _binds_nobody(cache: Cache) -> bool:
    """Whether no sample was kept, and nobody is at work."""
    try:
        if any(summary["num_samples"] for summary in cache.summaries()):
            return False
    except PeaError:
        return False
    return not any(living_below(cache.shard_dir(tar)) for tar in cache.identity.tars)


def _open(directory: Location, name: str) -> Cache:
    cache = Cache(directory, read_manifest(directory))
    if "/" in name or name in ("", ".", ".."):
        raise _no_such_tar(cache, name)
    return cache


def _no_such_tar(cache: Cache, name: str) -> CacheError:
    known = sorted(cache.identity.tars)
    shown = ", ".join(known[:5]) + (f" or {len(known) - 5} more" if len(known) > 5 else "")
    retired = name in retired_tars(cache.identity)
    remedy = "Give the file another name, and add it with `pea cache --extend`." if retired else None
    got = f"{name}, which was retired for good" if retired else name
    return CacheError("no such tar in the cache", where=cache.directory, expected=shown, got=got, remedy=remedy)


def _refuse_busy(cache: Cache, name: str) -> None:
    for owner in living_below(cache.shard_dir(name)).values():
        raise LeaseHeldError("somebody is writing this shard", where=cache.shard_dir(name), got=owner)


def _summaries(cache: Cache, name: str) -> Mapping[str, dict[str, Any]]:
    """Part -> summary, of the finished parts of a tar, whatever they were made from."""
    found = {}
    for plan in cache.manifest.parts:
        if plan.tar == name:
            try:
                found[plan.part] = read_summary(cache.record_path(plan))
            except ShardUnfinishedError:
                continue
    return found


def _withdraw(cache: Cache, wanted: Identity | None, name: str) -> int | None:
    """Take the finished state of those parts of a tar away that ``wanted`` does not describe; None: of all.

    Returns how many samples they held; None: there was no such part.
    """
    found, summaries = None, _summaries(cache, name)
    for plan in cache.manifest.parts:
        if plan.tar != name or plan.part not in summaries:
            continue
        digest = wanted and part_digest(wanted, plan)
        if summaries[plan.part]["content"] != digest:
            folder = cache.shard_dir(name)
            record = withdrawal(name, plan.part, "its tar was replaced")
            publish(folder, plan.part, (newest(folder, plan.part) or 0) + 1, record_to_bytes(record))
            found = max(found or 0, int(summaries[plan.part]["num_samples"]))
    return found


def _with_fields(identity: Identity, tars: Mapping[str, TarIdentity], retired: Iterable[str] | None = None) -> Identity:
    fields = dict(identity.fields) | {TARS: [tars[name].entry for name in sorted(tars)]}
    if retired is not None:
        fields[RETIRED] = sorted(retired)
    return Identity(fields)


def _publish(cache: Cache, manifest: Manifest) -> None:
    """The next generation of the manifest.

    Raises:
        CacheError: somebody else has changed it meanwhile.
    """
    before = max(generations(names_in(cache.directory), "manifest").get("manifest", [0]))
    if read_manifest(cache.directory) != cache.manifest or not publish_manifest(cache.directory, before + 1, manifest):
        raise CacheError("the manifest was changed meanwhile", where=cache.directory, remedy="Run the command again.")


def _forget(cache: Cache, name: str) -> None:
    """The certificate names samples that were made again; those of this tar are not there any more."""
    found = read_certificate(cache.directory)
    if found is not None and any(sample.startswith(f"{name}/") for sample in found.samples):
        samples = [sample for sample in found.samples if not sample.startswith(f"{name}/")]
        write_certificate(cache.directory, replace(found, samples=samples))
