"""Check a whole cache: every byte against its digest, every row against what it must be, every key exactly once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pea.cache.certificate import FILE_NAME as CERTIFICATE_FILE_NAME
from pea.cache.certificate import read_certificate
from pea.cache.completion import CompletionRecord, read_record
from pea.cache.files import TEMPORARY, sha256_file
from pea.cache.identity import Identity
from pea.cache.manifest import FILE_NAME, PartPlan, read_manifest
from pea.cache.reader import Bucket, Cache, Part, Shard
from pea.cache.takedown import FILE_NAME as REMOVED_FILE_NAME
from pea.cache.takedown import read_removed
from pea.draws import DrawRecipe, checksum, draws, noise, record_id
from pea.errors import CacheError, PeaError, ShardUnfinishedError
from pea.samples import sample_id, tar_keys, tar_name

_ROWS = 512
_NOISES_PER_BUCKET = 8


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    kind: str
    """``unfinished``, ``damaged``, ``content``, ``coverage``, ``extra`` or ``manifest``."""
    where: str
    """File or shard."""
    what: str
    """What was found."""
    tar: str | None = None
    part: str | None = None
    """The part that must be made again; None: no part."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.what}"


@dataclass
class Audit:
    """What an audit found."""

    problems: list[Problem] = field(default_factory=list)
    num_parts: int = 0
    """Parts in the manifest."""
    num_files: int = 0
    """Files whose digest was compared."""
    num_bytes: int = 0
    """Their size."""
    num_samples: int = 0
    """Samples in finished parts that hold samples."""

    @property
    def damaged_parts(self) -> list[tuple[str, str]]:
        """(tar, part) of each part that must be made again."""
        return sorted({(each.tar, each.part) for each in self.problems if each.tar and each.part})


def audit(
    directory: Path,
    *,
    jobs: int | None = None,
    tars: Sequence[Path] = (),
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Audit:
    """Check everything in a cache directory.

    ``tars``: the input tars, to compare their keys with those kept and dropped. ``progress`` is told (parts done,
    parts in all).
    """
    found = Audit()
    try:
        cache = Cache(directory, read_manifest(directory))
        removed = read_removed(directory)
        read_certificate(directory)
    except PeaError as error:
        found.problems.append(Problem("manifest", str(directory), str(error)))
        return found
    plans = cache.manifest.parts
    found.num_parts = len(plans)
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        checked = pool.map(lambda plan: _check_part(cache, plan, removed.get(plan.tar, ())), plans)
        for done, (problems, record) in enumerate(checked, start=1):
            found.problems += problems
            if record is not None:
                found.num_files += len(record.files)
                found.num_bytes += record.num_bytes
                found.num_samples += record.num_samples if record.summary["kind"] == "whole" else 0
            progress(done, len(plans))
    found.problems += _strays(cache)
    found.problems += _lost_removals(cache, removed)
    healthy = {plan.tar for plan in plans} - {tar for tar, _ in found.damaged_parts}
    by_tar = _by_tar(plans)
    for tar in sorted(healthy):
        found.problems += _check_shard(cache, tar, by_tar[tar])
    found.problems += _compare_with_tars(cache, tars, healthy)
    return found


def repair(cache: Cache, found: Audit) -> list[tuple[str, str]]:
    """Take the completion record from exactly the parts that are wrong, so that ``pea cache`` makes them again."""
    parts = found.damaged_parts
    for tar, part in parts:
        cache.record_path(cache.part_plan(tar, part)).unlink(missing_ok=True)
    return parts


def recipe_of(identity: Identity) -> DrawRecipe | None:
    """The recipe of a cache's draws; None for a cache without a teacher."""
    scheduler = identity.fields.get("teacher.scheduler")
    if scheduler is None:
        return None
    steps = int(scheduler.get("num_train_timesteps", 1000))
    return DrawRecipe(identity.fields["cache.seed"], identity.fields["cache.caption_drop_rate"], steps)


def _check_part(cache: Cache, plan: PartPlan, removed: Iterable[str]) -> tuple[list[Problem], CompletionRecord | None]:
    def problem(kind: str, where: object, what: object) -> Problem:
        return Problem(kind, str(where), str(what), plan.tar, plan.part)

    path = cache.record_path(plan)
    try:
        record = read_record(path)
    except ShardUnfinishedError as error:
        return [problem("unfinished", path, error)], None
    except PeaError as error:
        return [problem("damaged", path, error)], None
    if record.summary["content"] != cache.part_digest(plan):
        return [problem("damaged", path, "made from something else than the manifest says")], record
    store = cache.shard_dir(plan.tar) / record.store
    problems = [problem("damaged", store / name, what) for name, what in _compare_files(store, record)]
    if problems:
        return problems, record
    try:
        part = Part(cache, plan)
        problems = [problem("content", store, what) for what in _check_rows(part)]
    except PeaError as error:
        problems = [problem("content", store, error)]
    kept = {key for keys in record.kept.values() for key in keys}
    problems += [problem("content", store, f"{key} was removed and is still stored") for key in removed if key in kept]
    problems += [problem("coverage", path, what) for what in _check_keys(record)]
    return problems, record


def _compare_files(store: Path, record: CompletionRecord) -> Iterator[tuple[str, str]]:
    present = {path.relative_to(store).as_posix() for path in store.rglob("*") if not path.is_dir()}
    for name in sorted(present - record.files.keys()):
        yield name, "a file that the completion record does not list"
    for name, entry in record.files.items():
        path = store / name
        try:
            size = path.stat().st_size
            if size != entry.size_bytes:
                yield name, f"{size} bytes instead of {entry.size_bytes}"
            elif sha256_file(path) != entry.sha256:
                yield name, "other bytes than were written (sha256)"
        except OSError as error:
            yield name, str(error.strerror)


def _check_rows(part: Part) -> Iterator[str]:
    """Number of rows, key column, and finiteness of every array of a part."""
    for bucket, keys in part.record.kept.items():
        if part.texts(bucket, "keys") != keys:
            yield f"{bucket}: the stored keys are not those of the completion record"
        for name in part.array_names(bucket):
            array = part.array(bucket, name)
            per_row = {"sample": 1, "record": part.plan.num_draws}.get(array.dimension_names[0])
            if per_row is not None and len(array) != len(keys) * per_row:
                yield f"{bucket}/{name}: {len(array)} rows instead of {len(keys) * per_row}"
            for start in range(0, len(array), _ROWS):
                rows = array.read(start, min(start + _ROWS, len(array)))
                if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                    yield f"{bucket}/{name}: NaN or infinity in rows {start}..{start + len(rows)}"
                    break


def _check_keys(record: CompletionRecord) -> Iterator[str]:
    kept = Counter(key for keys in record.kept.values() for key in keys)
    yield from (f"{key} is kept {count} times" for key, count in kept.items() if count > 1)
    dropped = Counter(key for key, reason, _ in record.dropped if reason != "key_duplicate")
    yield from (f"{key} is dropped {count} times" for key, count in dropped.items() if count > 1)
    yield from (f"{key} is kept and dropped" for key in sorted(kept.keys() & dropped.keys()))
    for name, keys in record.kept.items():
        if record.summary["buckets"][name]["num_samples"] != len(keys):
            yield f"{name}: the summary counts {record.summary['buckets'][name]['num_samples']} of {len(keys)} samples"


def _by_tar(plans: Iterable[PartPlan]) -> dict[str, list[PartPlan]]:
    found: dict[str, list[PartPlan]] = {}
    for plan in plans:
        found.setdefault(plan.tar, []).append(plan)
    return found


def _check_shard(cache: Cache, tar: str, plans: Sequence[PartPlan]) -> Iterator[Problem]:
    """What only shows when all parts of a tar are seen together: their order, and the draws."""
    try:
        shard = Shard(cache, tar, plans)
        for bucket in shard.buckets.values():
            for what in _check_draws(tar, bucket, recipe_of(cache.identity)):
                yield Problem("content", f"{tar}/{bucket.name}", what, tar, plans[0].part)
    except PeaError as error:
        yield Problem("content", tar, str(error), tar, plans[0].part)


def _check_draws(tar: str, bucket: Bucket, recipe: DrawRecipe | None) -> Iterator[str]:
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


def _strays(cache: Cache) -> Iterator[Problem]:
    """Files and directories that nothing speaks of."""
    known = {FILE_NAME, REMOVED_FILE_NAME, "shards", CERTIFICATE_FILE_NAME, "run_summary.json"}
    for path in sorted(cache.directory.iterdir()):
        if path.name not in known and TEMPORARY not in path.name:
            yield Problem("extra", str(path), "not a part of the cache")
    plans = _by_tar(cache.manifest.parts)
    shards = cache.directory / "shards"
    for directory in sorted(shards.iterdir()) if shards.is_dir() else ():
        if directory.name not in plans:
            yield Problem("extra", str(directory), "no tar of that name is in the manifest")
            continue
        parts = [plan.part for plan in plans[directory.name]]
        for path in sorted(directory.iterdir()):
            if TEMPORARY not in path.name and path.name.split(".")[0] not in parts:
                yield Problem("extra", str(path), "not a part of the cache")


def _lost_removals(cache: Cache, removed: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Samples that a shard says were removed, and that the list of removed samples forgot."""
    for plan in cache.manifest.parts:
        try:
            record = read_record(cache.record_path(plan))
        except CacheError:
            continue
        listed = removed.get(plan.tar, ())
        for key, reason, _ in record.dropped:
            if reason == "removed" and key not in listed:
                where = str(cache.directory / REMOVED_FILE_NAME)
                yield Problem("manifest", where, f"{plan.tar}/{key} was removed but is not listed")


def _compare_with_tars(cache: Cache, tars: Sequence[Path], healthy: Iterable[str]) -> Iterator[Problem]:
    wanted, by_tar = set(healthy), _by_tar(cache.manifest.parts)
    for path in tars:
        tar = tar_name(path)
        if tar not in cache.identity.tars_by_name:
            yield Problem("coverage", str(path), "this tar is not in the cache")
        elif tar in wanted:
            plan = by_tar[tar][0]
            record = read_record(cache.record_path(plan))
            stored = {key for keys in record.kept.values() for key in keys} | {key for key, _, _ in record.dropped}
            keys = set(tar_keys(path))
            for key in sorted(keys - stored):
                yield Problem("coverage", f"{tar}/{key}", "in the tar, but neither kept nor dropped", tar, plan.part)
            for key in sorted(stored - keys):
                yield Problem("coverage", f"{tar}/{key}", "in the cache, but not in the tar", tar, plan.part)
