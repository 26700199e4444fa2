"""Check a whole cache: every byte against its digest, every row against what it must be, every key exactly once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pea.cache.certificate import FILE_NAME as CERTIFICATE_FILE_NAME
from pea.cache.certificate import read_certificate
from pea.cache.checks import check_draws, check_keys, check_rows, compare_files, recipe_of
from pea.cache.completion import CompletionRecord, read_record, record_to_bytes, withdrawal
from pea.cache.garbage import clear_garbage, clear_temporaries, garbage_in, part_of
from pea.cache.identity import READING, retired_tars
from pea.cache.manifest import NAME, damaged_generations, read_manifest
from pea.cache.part import Part, store_location
from pea.cache.part_plan import PartPlan
from pea.cache.publication import generation_name, generations, names_in, newest, publish
from pea.cache.reader import Cache
from pea.cache.removals import FILE_NAME as OLD_REMOVALS_FILE_NAME
from pea.cache.removals import FOLDER as REMOVALS_FOLDER
from pea.cache.removals import REASON, damaged_removals, removal_name, removed_in
from pea.cache.takedown import remove_samples
from pea.cache.text_statistics import FILE_NAME as STATISTICS_FILE_NAME
from pea.cache.totals import FILE_NAME as TOTALS_FILE_NAME
from pea.cache.totals import intact as totals_intact
from pea.corpus.tars import Place, tar_keys, tar_name
from pea.errors import PeaError, ShardUnfinishedError, StorageError
from pea.file_names import CACHE_SUMMARY
from pea.storage.durable import TEMPORARY
from pea.storage.location import Location

_KNOWN = (
    "shards",
    REMOVALS_FOLDER,
    OLD_REMOVALS_FILE_NAME,
    CERTIFICATE_FILE_NAME,
    TOTALS_FILE_NAME,
    CACHE_SUMMARY,
    STATISTICS_FILE_NAME,
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    kind: str
    """``unfinished``, ``damaged``, ``content``, ``coverage``, ``removed``, ``garbage``, ``extra`` or ``manifest``."""
    where: str
    """File or shard."""
    what: str
    """What was found."""
    tar: str | None = None
    part: str | None = None
    """The part that must be made again; None: no part."""
    generation: int | None = None
    """Of the part's record that was checked."""

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
    directory: str | Path | Location,
    *,
    jobs: int | None = None,
    tars: Sequence[Place] = (),
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Audit:
    """Check everything in a cache.

    ``tars``: the input tars, to compare their keys with those kept and dropped. ``progress`` is told (parts done,
    parts in all).

    Raises:
        StorageError: something cannot be read, which is no damage: nothing is known of it.
    """
    found, directory = Audit(), Location.parse(directory)
    try:
        cache = Cache(directory, read_manifest(directory))
        removed = cache.removed()
        read_certificate(directory)
    except StorageError:
        raise
    except PeaError as error:
        found.problems.append(Problem("manifest", str(directory), str(error)))
        return found
    plans = cache.manifest.parts
    found.num_parts = len(plans)
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        checked = pool.map(lambda plan: _check_part(cache, plan, removed), plans)
        for done, (problems, record) in enumerate(checked, start=1):
            found.problems += problems
            if record is not None:
                found.num_files += len(record.files)
                found.num_bytes += record.num_bytes
                found.num_samples += record.num_samples if record.summary["kind"] == "whole" else 0
                found.problems += _lost_removals(cache, record, removed)
            progress(done, len(plans))
    if not totals_intact(directory):
        what = "other bytes than were written; `pea inspect info` makes it anew"
        found.problems.append(Problem("damaged", str(directory / TOTALS_FILE_NAME), what))
    for place in (*damaged_generations(directory), *damaged_removals(directory)):
        found.problems.append(Problem("manifest", str(place), "other bytes than were written, or missing"))
    found.problems += _strays(cache)
    healthy = {plan.tar for plan in plans} - {tar for tar, _ in found.damaged_parts}
    by_tar = _by_tar(plans)
    for tar in sorted(healthy):
        found.problems += _check_shard(cache, tar, by_tar[tar])
    found.problems += _compare_with_tars(cache, tars, healthy)
    return found


def repair(cache: Cache, found: Audit) -> list[tuple[str, str]]:
    """Withdraw exactly the parts that are wrong, so that ``pea cache`` makes them again.

    Ends removals that were broken off, and clears what nobody owns.

    A part that was replaced since it was checked stays as it is. Returns the parts that were withdrawn.

    Raises:
        StorageError: the storage cannot be read or written.
    """
    parts = []
    for problem in found.problems:
        place = (problem.tar, problem.part)
        if problem.tar and problem.part and place not in parts:
            parts.append((problem.tar, problem.part))
            _withdraw(cache, problem)
    for tar in sorted({each.tar for each in found.problems if each.kind == "removed" and each.tar}):
        remove_samples(cache, tar, ())
    clear_temporaries(cache.directory)
    for folder in cache.directory.below("shards").list() if (cache.directory / "shards").exists() else ():
        if folder.name in retired_tars(cache.identity):
            folder.delete_tree()
        elif folder.name in cache.identity.tars_by_name:
            clear_garbage(cache.directory.below(f"shards/{folder.name}"))
    return sorted(parts)


def _withdraw(cache: Cache, problem: Problem) -> None:
    """Create the next generation after the one that was checked; who was there first keeps what it made."""
    assert problem.tar and problem.part
    if problem.generation is not None:
        folder = cache.directory.below(f"shards/{problem.tar}")
        record = withdrawal(problem.tar, problem.part, problem.kind)
        publish(folder, problem.part, problem.generation + 1, record_to_bytes(record))


def _check_part(cache: Cache, plan: PartPlan, removed: frozenset[str]) -> tuple[list[Problem], CompletionRecord | None]:
    """A part as its counting record describes it; once more where it was replaced meanwhile."""
    generation = newest(cache.shard_dir(plan.tar), plan.part)
    found = _check_generation(cache, plan, generation, removed)
    if found[0] and newest(cache.shard_dir(plan.tar), plan.part) != generation:
        return _check_part(cache, plan, removed)
    return found


def _check_generation(
    cache: Cache, plan: PartPlan, generation: int | None, removed: frozenset[str]
) -> tuple[list[Problem], CompletionRecord | None]:
    def problem(kind: str, where: object, what: object) -> Problem:
        return Problem(kind, str(where), str(what), plan.tar, plan.part, generation)

    path = cache.shard_dir(plan.tar) / generation_name(plan.part, generation or 0)
    try:
        record = read_record(path)
        if record.summary["content"] != cache.part_digest(plan):
            return [problem("damaged", path, "made from something else than the manifest says")], record
        store = store_location(path, record.store)
        problems = [problem("damaged", store / name, what) for name, what in compare_files(store, record)]
    except ShardUnfinishedError as error:
        return [Problem("unfinished", str(path), str(error), plan.tar, plan.part)], None
    except StorageError:
        raise
    except PeaError as error:
        return [problem("damaged", path, error)], None
    if problems:
        return problems, record
    try:
        part = Part(plan, path)
        problems = [problem("content", store, what) for what in check_rows(part)]
    except StorageError:
        raise
    except PeaError as error:
        problems = [problem("content", store, error)]
    in_format_1 = {key for key, reason, _ in record.dropped if reason == REASON}  # as its list of removals: in clear
    for _ in removed_in(record, removed) - in_format_1:
        what = "a sample that was removed is still stored; `--repair` ends its removal"
        problems.append(Problem("removed", str(path), what, plan.tar))
    problems += [problem("coverage", path, what) for what in check_keys(record)]
    return problems, record


def _by_tar(plans: Iterable[PartPlan]) -> dict[str, list[PartPlan]]:
    found: dict[str, list[PartPlan]] = {}
    for plan in plans:
        found.setdefault(plan.tar, []).append(plan)
    return found


def _check_shard(cache: Cache, tar: str, plans: Sequence[PartPlan]) -> Iterator[Problem]:
    """What only shows when all parts of a tar are seen together: their order, and the draws."""
    generation = newest(cache.shard_dir(tar), plans[0].part)
    try:
        shard = cache.shard(tar)
        for bucket in shard.buckets.values():
            for what in check_draws(tar, bucket, recipe_of(cache.identity)):
                yield Problem("content", f"{tar}/{bucket.name}", what, tar, plans[0].part, generation)
    except StorageError:
        raise
    except PeaError as error:
        yield Problem("content", tar, str(error), tar, plans[0].part, generation)


def _strays(cache: Cache) -> Iterator[Problem]:
    """Files and directories that nothing speaks of; not those of writers that are at work."""
    for name in sorted(names_in(cache.directory)):
        if name not in _KNOWN and not generations([name], NAME) and TEMPORARY not in name:
            yield Problem("extra", str(cache.directory / name), "not a part of the cache")
    plans = _by_tar(cache.manifest.parts)
    for tar in sorted(names_in(cache.directory / "shards")):
        folder = cache.directory / "shards" / tar
        if tar in retired_tars(cache.identity):
            yield Problem("garbage", str(folder), "left of a tar that was retired; `--repair` deletes it")
            continue
        if tar not in plans:
            yield Problem("extra", str(folder), "no tar of that name is in the manifest")
            continue
        parts = {plan.part for plan in plans[tar]}
        garbage = set(garbage_in(folder))
        for name in sorted(names_in(folder)):
            if part_of(name) not in parts and TEMPORARY not in name:
                yield Problem("extra", str(folder / name), "not a part of the cache")
            elif name in garbage:
                yield Problem("garbage", str(folder / name), "left by a writer that ended; `--repair` deletes it")


def _lost_removals(cache: Cache, record: CompletionRecord, removed: frozenset[str]) -> Iterator[Problem]:
    """Samples that a shard says were removed, and whose removal is not there any more."""
    for key, reason, _ in record.dropped:
        if reason == REASON and key not in removed and removal_name(record.tar, key) not in removed:
            where = str(cache.directory / REMOVALS_FOLDER)
            yield Problem("manifest", where, f"a sample of {record.tar} was removed, its removal is not there")


def _compare_with_tars(cache: Cache, tars: Sequence[Place], healthy: Iterable[str]) -> Iterator[Problem]:
    wanted, by_tar = set(healthy), _by_tar(cache.manifest.parts)
    for path in tars:
        tar = tar_name(path)
        if tar in retired_tars(cache.identity):
            continue
        if tar not in cache.identity.tars_by_name:
            yield Problem("coverage", str(path), "this tar is not in the cache")
        elif tar in wanted:
            plan = by_tar[tar][0]
            generation = newest(cache.shard_dir(tar), plan.part)
            record = read_record(cache.record_path(plan))
            stored = {key for keys in record.kept.values() for key in keys} | {key for key, _, _ in record.dropped}
            named = tar_keys(path, cache.identity.fields.get(READING))
            keys = {name if (name := removal_name(tar, key)) in stored else key for key in named}
            for key in sorted(keys - stored):
                what = "in the tar, but neither kept nor dropped"
                yield Problem("coverage", f"{tar}/{key}", what, tar, plan.part, generation)
            for key in sorted(stored - keys):
                what = "in the cache, but not in the tar"
                yield Problem("coverage", f"{tar}/{key}", what, tar, plan.part, generation)


__all__ = ["Audit", "Problem", "audit", "recipe_of", "repair"]
