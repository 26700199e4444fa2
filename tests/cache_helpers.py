"""Small caches of made-up but reproducible arrays, without any model."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pea.cache import ArraySpec, Cache, Identity, PartPlan, ShardSchema, ShardWriter, base_arrays
from pea.cache.completion import read_record
from pea.cache.identity import ATTENTION
from pea.cache.query_arrays import QueryGroup, query_arrays
from pea.cache.schema import feature_arrays
from pea.draws.recipe import DrawRecipe, checksum, draws, noise_batch, record_ids

LATENT = (2, 3, 4)
FEATURE_SHAPE = (5, 2, 2)
RECIPE = DrawRecipe(seed=0, caption_drop_rate=0.1, num_train_timesteps=1000)


@dataclass(frozen=True)
class Layout:
    """As ``pea.sketch.ArrayLayout``."""

    dtype: str
    shape: tuple[int, ...]
    dimension_names: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


LAYOUTS = {
    "values": Layout("float16", FEATURE_SHAPE, ("channel", "height", "width"), {"feature_shape": list(FEATURE_SHAPE)}),
    "squared_norm": Layout("float32", (), ()),
}


def identity(
    tars: Sequence[str] = ("a", "b"), draws: int = 3, blocks: Sequence[str] = ("mid_block",), **changed: Any
) -> Identity:
    """A made-up identity."""
    return Identity(
        {
            "cache.seed": 0,
            "cache.caption_drop_rate": 0.1,
            "teacher.scheduler": {"num_train_timesteps": 1000},
            "teacher.unet": "0" * 64,
            "cache.buckets": [[24, 32], [32, 24]],
            "cache.draws_per_sample": draws,
            "cache.blocks": list(blocks),
            "cache.sketches": {block: {"kind": "exact"} for block in blocks},
            "corpus.tars": [{"name": tar, "size_bytes": 7, "sha256": tar * 8} for tar in sorted(tars)],
            **changed,
        }
    )


def value_rows(spec: ArraySpec, names: Sequence[str]) -> np.ndarray:
    """One row per name, which follows from the array's and the row's name alone."""
    rows = np.empty((len(names), *spec.shape), dtype=spec.dtype)
    for row, name in enumerate(names):
        random = np.random.default_rng(zlib.crc32(f"{spec.name} {name}".encode()))
        values = random.normal(size=spec.shape) if rows.dtype.kind == "f" else random.integers(0, 900, spec.shape)
        rows[row] = values
    return rows


def draw_rows(plan: PartPlan, keys: Sequence[str], names: set[str]) -> dict[str, np.ndarray]:
    """The real draws of some samples, for those arrays that a part has."""
    ids = [f"{plan.tar}/{key}" for key in keys]
    drawn = [draws(RECIPE, name, plan.draw_start, plan.draw_stop) for name in ids]
    owners = [name for name in ids for _ in range(plan.num_draws)]
    numbers = list(range(plan.draw_start, plan.draw_stop)) * len(ids)
    found = {
        "timestep": np.concatenate([each.timestep for each in drawn]),
        "caption_dropped": np.concatenate([each.caption_dropped for each in drawn]),
        "record_id": record_ids(owners, numbers),
        "noise_checksum": np.array([checksum(row) for row in noise_batch(RECIPE, owners, numbers, LATENT)], np.uint32),
    }
    return {name: rows for name, rows in found.items() if name in names}


class _Templates:
    """Caches that were written before, by all that they were written from."""

    folder: ClassVar[Path | None] = None
    """None: nothing is kept. Set by the tests' process; programs that tests start write anew."""
    made: ClassVar[dict[Any, Path]] = {}


def _is_free(directory: Any) -> bool:
    return isinstance(directory, Path) and not directory.exists()


def keep_templates(folder: Path | None) -> None:
    """Keep caches in a folder from now on, or, with None, no longer."""
    _Templates.folder, _Templates.made = folder, {}


@dataclass
class CacheMaker:
    """Makes caches in one directory."""

    directory: Path
    buckets: tuple[str, ...] = ("24x32",)
    samples_per_tar: int = 4
    rejected: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """(tar, part) -> keys that this part rejects."""
    queries: bool = False
    """Whether its arrays are those of a cache with queries; follows what is filled."""
    anew: bool = False
    """Write each cache, also one that was written before: where the writing is what is tested."""

    def all_arrays(self, blocks: Sequence[str]) -> tuple[ArraySpec, ...]:
        """Every array of a cache with these blocks."""
        features = [spec for block in blocks for spec in feature_arrays(block, LAYOUTS, {"kind": "exact"})]
        queries = query_arrays([QueryGroup("attn2", ("attn2",), 1, (3, 4))], (5, 6), 7, "float16")
        return (*base_arrays(LATENT, "float32", "float16"), *features, *(queries if self.queries else ()))

    def schema(self, plan: PartPlan) -> ShardSchema:
        """The schema of one part."""
        arrays = plan.select(self.all_arrays(plan.blocks))
        return ShardSchema(plan.num_draws, (), dict.fromkeys(self.buckets, arrays), plan.draw_start)

    def keys(self, tar: str, bucket: str) -> list[str]:
        """The keys of a tar that fall into a bucket."""
        return [f"{tar}-{bucket}-{index}" for index in range(self.samples_per_tar)]

    def append(self, writer: ShardWriter, plan: PartPlan, bucket: str, keys: Sequence[str]) -> None:
        """Append made-up samples."""
        records = [f"{plan.tar}/{key}#{draw}" for key in keys for draw in range(plan.draw_start, plan.draw_stop)]
        names = {"sample": [f"{plan.tar}/{key}" for key in keys], "record": records}
        rows = {
            level: {s.name: value_rows(s, names[level]) for s in self.schema(plan).buckets[bucket] if s.level == level}
            for level in ("sample", "record")
        }
        rows["record"] |= draw_rows(plan, keys, set(rows["record"]))
        captions = [{"en": f"caption {key}", "zh": f"说明 {key}" if key.endswith("1") else ""} for key in keys]
        writer.append(bucket, keys=keys, captions=captions, samples=rows["sample"], records=rows["record"])

    def write(self, cache: Cache, plan: PartPlan) -> None:
        """Write one part."""
        with ShardWriter(cache, plan.tar, plan.part, self.schema(plan)) as writer:
            for bucket in self.buckets:
                rejected = self.rejected.get((plan.tar, plan.part), set())
                keys = [key for key in self.keys(plan.tar, bucket) if key not in rejected]
                for start in range(0, len(keys), 3):
                    self.append(writer, plan, bucket, keys[start : start + 3])
                for key in sorted(rejected & set(self.keys(plan.tar, bucket))):
                    writer.reject(key, "nonfinite_teacher", "made up")
            writer.finish()

    def fill(self, wanted: Identity | None = None, *, extend: bool = False) -> Cache:
        """Create, resume or extend the cache and write whatever is missing.

        A new cache on a disk is a copy of one that was written before from the same, unless it is written ``anew``.
        """
        changed = vars(self).keys() != {each.name for each in fields(self)}
        if changed or self.anew or _Templates.folder is None or not _is_free(self.directory):
            return self._fill(wanted, extend)
        rejected = sorted((place, sorted(keys)) for place, keys in self.rejected.items())
        key = (type(self), repr((wanted or identity()).fields), self.buckets, self.samples_per_tar, repr(rejected))
        if key not in _Templates.made:
            place = _Templates.folder / f"cache-{len(_Templates.made)}"
            replace(self, directory=place, anew=True).fill(wanted)
            _Templates.made[key] = place
        shutil.copytree(_Templates.made[key], self.directory)
        return Cache.open(self.directory, wanted)

    def _fill(self, wanted: Identity | None, extend: bool) -> Cache:
        cache = Cache.create_or_resume(self.directory, wanted or identity(), extend=extend)
        self.queries = cache.identity.fields.get(ATTENTION) is not None
        for plan in cache.plan(clear=True):
            self.write(cache, plan)
        return Cache.open(self.directory, wanted)


def store_of(cache: Cache, tar: str = "a", part: str = "p000") -> Path:
    """The folder of the store that the completion record of a part names."""
    record = cache.record_path(cache.part_plan(tar, part))
    return Path(record.parent) / read_record(record).store


def content(cache: Cache) -> dict[str, Any]:
    """Everything that can be read of a cache."""
    found: dict[str, Any] = {}
    for shard in cache.shards:
        for name, bucket in shard.buckets.items():
            place = f"{shard.tar}/{name}"
            found[place] = [
                bucket.keys,
                bucket.languages,
                *(bucket.captions(each) for each in bucket.languages),
            ]
            for array, spec in bucket.arrays.items():
                rows = bucket.num_samples if spec.level == "sample" else bucket.num_records
                found[f"{place}/{array}"] = bucket.read([array], 0, rows)[array].tobytes()
    return found
