"""What a healthy part of a shard looks like: its files, its rows, its keys, and the draws of its samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from pea.cache.completion import CompletionRecord, has_digest
from pea.cache.identity import Identity, noise_offset_of
from pea.cache.part import Part
from pea.cache.shard import Bucket
from pea.corpus.reasons import REPEATED
from pea.corpus.tars import sample_id
from pea.draws.recipe import DrawRecipe, checksum, draws, noise, record_id
from pea.storage.location import Location

_BYTES = 16 << 20
_NOISES_PER_BUCKET = 8


def compare_files(store: Location, record: CompletionRecord) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) of every file that is missing, extra, of another size, or of other bytes.

    Raises:
        StorageError: a file cannot be read, which says nothing about what it holds.
    """
    sizes = {each.name: each.status.size_bytes for each in store.entries(recursive=True) if each.status is not None}
    for name in sorted(sizes.keys() - record.files.keys()):
        yield name, "a file that the completion record does not list"
    for name, entry in record.files.items():
        if name not in sizes:
            yield name, "No such file or directory"
        elif sizes[name] != entry.size_bytes:
            yield name, f"{sizes[name]} bytes instead of {entry.size_bytes}"
        elif not has_digest(store.below(name), entry.digest):
            yield name, "other bytes than were written (digest)"


def check_rows(part: Part) -> Iterator[str]:
    """Number of rows, key column, and finiteness of every array of a part."""
    for bucket, keys in part.record.kept.items():
        if part.texts(bucket, "keys") != keys:
            yield f"{bucket}: the stored keys are not those of the completion record"
        for name in part.array_names(bucket):
            array = part.array(bucket, name)
            step = max(1, _BYTES // array.layout.row_bytes)
            for start in range(0, len(array), step):
                rows = array.read(start, min(start + step, len(array)))
                if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                    yield f"{bucket}/{name}: NaN or infinity in rows {start}..{start + len(rows)}"
                    break


def check_keys(record: CompletionRecord) -> Iterator[str]:
    """Each key must be kept once or dropped once."""
    kept = Counter(key for keys in record.kept.values() for key in keys)
    yield from (f"{key} is kept {count} times" for key, count in kept.items() if count > 1)
    dropped = Counter(key for key, reason, _ in record.dropped if reason not in REPEATED)
    yield from (f"{key} is dropped {count} times" for key, count in dropped.items() if count > 1)
    yield from (f"{key} is kept and dropped" for key in sorted(kept.keys() & dropped.keys()))
    for name, keys in record.kept.items():
        if record.summary["buckets"][name]["num_samples"] != len(keys):
            yield f"{name}: the summary counts {record.summary['buckets'][name]['num_samples']} of {len(keys)} samples"


def check_draws(tar: str, bucket: Bucket, recipe: DrawRecipe | None) -> Iterator[str]:
    """Timesteps, drops and record ids of every record, and the noise checksum of some, must follow from the keys."""
    if recipe is None or bucket.draws_per_sample == 0:
        return
    names = ["timestep", "caption_dropped", "record_id", "noise_checksum"]
    rows = bucket.read(names, 0, bucket.num_records)
    count = bucket.draws_per_sample
    for index, key in enumerate(bucket.keys):
        name, place = sample_id(tar, key), slice(index * count, (index + 1) * count)
        drawn = draws(recipe, name, 0, count)
        ids = [record_id(name, draw) for draw in range(count)]
        expected = (drawn.timestep.tolist(), drawn.caption_dropped.tolist(), ids)
        if expected != tuple(rows[each][place].tolist() for each in names[:3]):
            yield f"{key}: the draws are not those of its key"
    shape = bucket.arrays["latents_mean"].shape
    for row in np.linspace(0, bucket.num_records - 1, min(_NOISES_PER_BUCKET, bucket.num_records)).astype(int).tolist():
        name = sample_id(tar, bucket.keys[row // count])
        if checksum(noise(recipe, name, row % count, shape)) != rows["noise_checksum"][row]:
            yield f"{bucket.keys[row // count]}: draw {row % count} has another noise than its key gives"


def recipe_of(identity: Identity) -> DrawRecipe | None:
    """The recipe of a cache's draws; None for a cache without a teacher."""
    scheduler = identity.fields.get("teacher.scheduler")
    if scheduler is None:
        return None
    steps = int(scheduler.get("num_train_timesteps", 1000))
    rate = identity.fields["cache.caption_drop_rate"]
    return DrawRecipe(identity.fields["cache.seed"], rate, steps, noise_offset_of(identity))
