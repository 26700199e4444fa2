"""Check a whole cache: every byte against its digest, every row against what it must be, every key exactly once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pea.cache.certificate import FILE_NAME as CERTIFICATE_FILE_NAME
from pea.cache.certificate import read_certificate
from pea.cache.checks import check_draws, check_keys, check_rows, compare_files, recipe_of
from pea.cache.completion import CompletionRecord, read_record
from pea.cache.manifest import FILE_NAME, PartPlan, read_manifest
from pea.cache.reader import Cache
from pea.cache.removals import FILE_NAME as REMOVED_FILE_NAME
from pea.cache.removals import read_removed
from pea.cache.shard import Part
from pea.cache.totals import FILE_NAME as TOTALS_FILE_NAME
from pea.cache.totals import intact as totals_intact
from pea.corpus.tars import tar_keys, tar_name
from pea.errors import CacheError, PeaError, ShardUnfinishedError
from pea.storage.durable import TEMPORARY


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
    if not totals_intact(directory):
        what = "other bytes than were written; `pea inspect info` makes it anew"
        found.problems.append(Problem("damaged", str(directory / TOTALS_FILE_NAME), what))
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
    problems = [problem("damaged", store / name, what) for name, what in compare_files(store, record)]
    if problems:
        return problems, record
    try:
        part = Part(plan, cache.record_path(plan))
        problems = [problem("content", store, what) for what in check_rows(part)]
    except PeaError as error:
        problems = [problem("content", store, error)]
    kept = {key for keys in record.kept.values() for key in keys}
    problems += [problem("content", store, f"{key} was removed and is still stored") for key in removed if key in kept]
    problems += [problem("coverage", path, what) for what in check_keys(record)]
    return problems, record


def _by_tar(plans: Iterable[PartPlan]) -> dict[str, list[PartPlan]]:
    found: dict[str, list[PartPlan]] = {}
    for plan in plans:
        found.setdefault(plan.tar, []).append(plan)
    return found


def _check_shard(cache: Cache, tar: str, plans: Sequence[PartPlan]) -> Iterator[Problem]:
    """What only shows when all parts of a tar are seen together: their order, and the draws."""
    try:
        shard = cache.shard(tar)
        for bucket in shard.buckets.values():
            for what in check_draws(tar, bucket, recipe_of(cache.identity)):
                yield Problem("content", f"{tar}/{bucket.name}", what, tar, plans[0].part)
    except PeaError as error:
        yield Problem("content", tar, str(error), tar, plans[0].part)


def _strays(cache: Cache) -> Iterator[Problem]:
    """Files and directories that nothing speaks of."""
    known = {FILE_NAME, REMOVED_FILE_NAME, "shards", CERTIFICATE_FILE_NAME, TOTALS_FILE_NAME, "run_summary.json"}
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


__all__ = ["Audit", "Problem", "audit", "recipe_of", "repair"]
