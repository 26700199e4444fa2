"""Take samples down: their tar's parts are written anew without them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pea.cache.certificate import read_certificate, write_certificate
from pea.cache.completion import CompletionRecord
from pea.cache.garbage import clear_garbage, clear_temporaries
from pea.cache.part import Part, is_counting
from pea.cache.part_plan import PartPlace, PartPlan
from pea.cache.reader import Cache
from pea.cache.removals import add_removed, removal_name, removed_in
from pea.cache.schema import CAPTIONS, KEYS, ArraySpec, ShardSchema
from pea.cache.strict_json import read_at_most
from pea.errors import CacheError, LocationMissingError, ShardDamagedError, ShardUnfinishedError
from pea.file_names import CACHE_SUMMARY

if TYPE_CHECKING:
    import numpy.typing as npt

_COPIED_SAMPLES = 64
_MOST_SUMMARY_BYTES = 64 << 20


def remove_samples(cache: Cache, tar: str, keys: Sequence[str]) -> list[str]:
    """Take samples of one tar down: each part is written anew without them, and replaces the old one at once.

    Returns the keys that were in the cache. A crash leaves every part whole; run it again to end the work, whose last
    step deletes the old stores and records. What then is left of the samples in any file is a digest of tar and key.

    Raises:
        CacheError: the tar is not in the cache.
        ShardDamagedError: a part of it cannot be copied.
        StorageError: the storage cannot be read or written.
    """
    plans = [plan for plan in cache.manifest.parts if plan.tar == tar]
    if not plans:
        raise CacheError("no such tar in the cache", where=cache.directory, got=tar)
    clear_temporaries(cache.directory)
    add_removed(cache.directory, tar, keys)
    _forget_in_certificate(cache)
    _forget_in_summary(cache, keys)
    found: set[str] = set()
    for plan in plans:
        while (part := _open(cache, plan)) is not None:
            removed = cache.removed()
            present = removed_in(part.record, removed)
            if not present:
                break
            found |= present
            try:
                copy_rows(part, cache, plan, replaces=part.generation)
            except ShardDamagedError:
                if not part.is_replaced:  # else by somebody who took other samples down, and cleared the old store
                    raise
            except CacheError:
                if cache.removed() == removed:  # else others were taken down while it was written: once more
                    raise
        clear_garbage(cache.shard_dir(tar), plan.part)
    return sorted(found.intersection(keys))


def _open(cache: Cache, plan: PartPlan) -> Part | None:
    """A part that is finished."""
    while True:
        place = PartPlace(plan, cache.record_path(plan))
        try:
            return Part(*place)
        except ShardUnfinishedError:
            if is_counting(place):
                return None


def _forget_in_certificate(cache: Cache) -> None:
    """The certificate names the samples that were made again; once more where others take samples down as well."""
    while (found := read_certificate(cache.directory)) is not None:
        removed = cache.removed()
        names = [_without_key(name, removed) for name in found.samples]
        if names == found.samples:
            return
        write_certificate(cache.directory, replace(found, samples=names))


def _forget_in_summary(cache: Cache, keys: Sequence[str]) -> None:
    """The report of the last run may name a sample that ended its process."""
    place = cache.directory / CACHE_SUMMARY
    try:
        summary = json.loads(read_at_most(place, _MOST_SUMMARY_BYTES))
        failed = {
            tar: "at a sample that was taken down" if any(key in why for key in keys) else why
            for tar, why in summary["failed"].items()
        }
    except (LocationMissingError, ValueError, KeyError, TypeError, AttributeError):
        return
    if failed != summary["failed"]:
        place.write_bytes((json.dumps(summary | {"failed": failed}, indent=2) + "\n").encode())


def _without_key(name: str, removed: frozenset[str]) -> str:
    tar, _, key = name.partition("/")
    return removal_name(tar, key) if removal_name(tar, key) in removed else name


def copy_rows(
    part: Part,
    cache: Cache,
    plan: PartPlan,
    *,
    replaces: int | None = None,
    languages: Collection[str] | None = None,
) -> CompletionRecord:
    """Copy a part through a writer, which leaves out what is removed, into ``cache`` as the part of ``plan``.

    ``plan``: the same draws, and some of the blocks. ``languages``: captions that are kept; None: all.
    Returns the record that counts.

    Raises:
        ShardDamagedError: the part is not what was written.
        StorageError: the storage cannot be read or written.
    """
    from pea.cache.writer import ShardWriter  # brings zarr, which is slow to import, and a check does without

    arrays = {bucket: plan.select(_specs(part, bucket)) for bucket in part.record.kept}
    schema = ShardSchema(plan.num_draws, (), arrays, plan.draw_start)
    with ShardWriter(cache, plan.tar, plan.part, schema, replaces=replaces) as writer:
        writer.caption_tables = part.record.summary.get("caption_tables", {})
        for key, reason, detail in part.record.dropped:
            writer.reject(key, reason, detail)
        for bucket, keys in part.record.kept.items():
            names = [each for each in part.languages(bucket) if languages is None or each in languages]
            texts = {name: part.texts(bucket, f"{CAPTIONS}/{name}") for name in names}
            for start in range(0, len(keys), _COPIED_SAMPLES):
                stop = min(start + _COPIED_SAMPLES, len(keys))
                captions = [
                    {name: texts[name][row] for name in names if texts[name][row]} for row in range(start, stop)
                ]
                rows = {
                    level: _rows(part, bucket, arrays[bucket], level, start, stop) for level in ("sample", "record")
                }
                writer.append(
                    bucket, keys=keys[start:stop], captions=captions, samples=rows["sample"], records=rows["record"]
                )
        return writer.finish()


def _specs(part: Part, bucket: str) -> tuple[ArraySpec, ...]:
    names = (name for name in part.array_names(bucket) if not name.startswith((f"{KEYS}/", f"{CAPTIONS}/")))
    return tuple(part.spec(bucket, name) for name in names)


def _rows(
    part: Part, bucket: str, specs: Sequence[ArraySpec], level: str, start: int, stop: int
) -> dict[str, npt.NDArray[Any]]:
    per_sample = part.plan.num_draws if level == "record" else 1
    return {
        spec.name: part.array(bucket, spec.name).read(start * per_sample, stop * per_sample)
        for spec in specs
        if spec.level == level
    }
