"""Take samples down: their tar's parts are written anew without them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pea.cache.reader import Cache
from pea.cache.removals import add_removed
from pea.cache.schema import CAPTIONS, KEYS, ArraySpec, ShardSchema
from pea.cache.shard import Part
from pea.cache.writer import ShardWriter
from pea.errors import CacheError
from pea.storage.durable import remove_tree

if TYPE_CHECKING:
    import numpy.typing as npt

_COPIED_SAMPLES = 64


def remove_samples(cache: Cache, tar: str, keys: Sequence[str]) -> list[str]:
    """Take samples of one tar down: each part is written anew without them, and replaces the old one at once.

    Returns the keys that were in the cache. A crash leaves every part whole; run it again to end the work.

    Raises:
        CacheError: the tar is not in the cache.
        ShardUnfinishedError, ShardDamagedError: a part of it cannot be copied.
    """
    plans = [plan for plan in cache.manifest.parts if plan.tar == tar]
    if not plans:
        raise CacheError("no such tar in the cache", where=cache.directory, got=tar)
    add_removed(cache.directory, tar, keys)
    found: set[str] = set()
    for plan in plans:
        part = Part(plan, cache.record_path(plan))
        present = {key for stored in part.record.kept.values() for key in stored}.intersection(keys)
        if present:
            _rewrite(cache, part)
        found |= present
    return sorted(found)


def _rewrite(cache: Cache, part: Part) -> None:
    """Copy a part through a writer, which leaves out what is listed as removed."""
    plan, old = part.plan, part.store
    arrays = {bucket: _specs(part, bucket) for bucket in part.record.kept}
    schema = ShardSchema(plan.num_draws, (), arrays, plan.draw_start)
    number = 1 + int(old.name.removesuffix(".zarr").partition(".r")[2] or 0)
    with ShardWriter(cache, plan.tar, plan.part, schema, store_name=f"{plan.part}.r{number}.zarr") as writer:
        for key, reason, detail in part.record.dropped:
            writer.reject(key, reason, detail)
        for bucket, keys in part.record.kept.items():
            languages = part.languages(bucket)
            texts = {language: part.texts(bucket, f"{CAPTIONS}/{language}") for language in languages}
            for start in range(0, len(keys), _COPIED_SAMPLES):
                stop = min(start + _COPIED_SAMPLES, len(keys))
                captions = [
                    {name: texts[name][row] for name in languages if texts[name][row]} for row in range(start, stop)
                ]
                rows = {
                    level: _rows(part, bucket, arrays[bucket], level, start, stop) for level in ("sample", "record")
                }
                writer.append(
                    bucket, keys=keys[start:stop], captions=captions, samples=rows["sample"], records=rows["record"]
                )
        writer.finish()
    remove_tree(old)


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
