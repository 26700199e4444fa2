"""What each subcommand of ``pea inspect`` does: find, print, exit code."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from data_tools.tables import count_of, human_bytes, say, table
from pea.cache import Cache
from pea.cache.manifest import FILE_NAME, read_manifest
from pea.errors import CacheError
from pea.foreign_text import visible
from pea.storage.location import Location

_SHOWN_PROBLEMS = 50


def find_cache(place: str | Path | Location) -> Location:
    """The cache that a path or URL means: itself, or the parallel cache of a run folder.

    Raises:
        CacheError: there is none.
        LocationError: it is neither.
        StorageError: it cannot be read.
    """
    path = Location.parse(place)
    for candidate in (path, path / "cache" / "parallel", path / "parallel"):
        if (candidate / FILE_NAME).exists():
            return candidate
    raise CacheError("no cache here", where=path, remedy="Give the folder that holds manifest.json.")


def _info(arguments: argparse.Namespace) -> int:
    from data_tools.inspect.info import collect, lookup, render

    facts = collect(arguments.cache)
    if arguments.get:
        value = lookup(facts, arguments.get)
        print(visible(value) if isinstance(value, str) else json.dumps(value))
    elif arguments.json:
        print(json.dumps(facts, indent=1))
    else:
        say(render(facts))
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    cache = Cache(arguments.cache, read_manifest(arguments.cache))
    if arguments.dropped is not None:
        return _ls_dropped(cache, arguments.tar, arguments.dropped)
    if arguments.tar is None:
        by_name = {(each["tar"], each["part"]): each for each in cache.summaries()}
        rows = []
        for plan in cache.manifest.parts:
            found = by_name.get((plan.tar, plan.part))
            counts: list[Any] = ["unfinished", "", "", ""]
            if found:
                dropped = sum(found["dropped"].values())
                counts = [found["num_samples"], found["num_records"], dropped, human_bytes(found["num_bytes"])]
            rows.append([f"{plan.tar}/{plan.part}", plan.kind, f"{plan.draw_start}..{plan.draw_stop}", *counts])
        say(table(["shard", "kind", "draws", "samples", "records", "dropped", "size"], rows))
        return 0
    shard = next((shard for shard in cache.shards if shard.tar == arguments.tar), None)
    if shard is None:
        raise CacheError("no such finished shard", where=arguments.cache, got=arguments.tar)
    for bucket in shard.buckets.values():
        captions = bucket.captions(bucket.languages[0]) if bucket.languages else [""] * bucket.num_samples
        for key, caption in zip(bucket.keys, captions, strict=True):
            say(f"{shard.tar}/{key}  {bucket.name}  {visible(caption)}")
    for key, reason, detail in shard.record.dropped:
        say(f"{shard.tar}/{key}  dropped: {reason}  {detail}".rstrip())
    return 0


def _ls_dropped(cache: Cache, tar: str | None, reason: str) -> int:
    """Every sample that was left out of a cache, or of one tar, by reason. ``reason``: of this one only; empty: all."""
    from data_tools.inspect.dropped import dropped_samples
    from pea.corpus.reasons import REASONS

    if tar is not None and tar not in cache.identity.tars_by_name:
        raise CacheError("no such tar in the cache", where=cache.directory, got=tar)
    found = dropped_samples(cache, tar)
    known = sorted(REASONS.keys() | found.keys())
    if reason and reason not in known:
        raise CacheError("no such reason", where="--dropped", expected=f"one of {', '.join(known)}", got=reason)
    for each in sorted(found) if not reason else [reason]:
        samples = found.get(each, [])
        say(f"{each}: {count_of(len(samples), 'sample')} ({REASONS.get(each, 'a reason of another version')})")
        for name, detail in samples:
            say(f"  {name}  {visible(detail)}".rstrip())
    say(f"{count_of(sum(map(len, found.values())), 'sample')} left out of {cache.directory}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from data_tools.inspect.show import find_sample, render, write_pictures

    sample = find_sample(Cache.open(arguments.cache, partial=True), arguments.key)
    say(render(sample))
    if arguments.pictures:
        for path in write_pictures(sample, arguments.pictures, arguments.checkpoint):
            say(f"wrote {path}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from pea.cache.audit import audit, repair
    from pea.corpus.samples import expand_tars

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\rchecked {done} of {total} shards", end="\n" if done == total else "", file=sys.stderr)

    tars = expand_tars(arguments.tars) if arguments.tars else []
    found = audit(arguments.cache, jobs=arguments.jobs, tars=tars, progress=progress)
    if arguments.json:
        print(json.dumps({**vars(found), "problems": [vars(each) for each in found.problems]}))
    else:
        for problem in found.problems[:_SHOWN_PROBLEMS]:
            say(problem)
        if len(found.problems) > _SHOWN_PROBLEMS:
            say(f"... and {len(found.problems) - _SHOWN_PROBLEMS} more")
        say(
            f"{found.num_parts} shards, {found.num_samples} samples, {found.num_files} files, "
            f"{human_bytes(found.num_bytes)}: {count_of(len(found.problems), 'problem')}"
        )
    if arguments.repair and any(problem.kind != "manifest" for problem in found.problems):
        parts = repair(Cache(arguments.cache, read_manifest(arguments.cache)), found)
        names = ", ".join(f"{tar}/{part}" for tar, part in parts)
        remedy = f": {names}; run `pea cache` to make them again" if parts else "; what nobody owns is cleared"
        say(f"re-queued {count_of(len(parts), 'shard')}{remedy}", file=sys.stderr)
    return 1 if found.problems else 0


def _diff(arguments: argparse.Namespace) -> int:
    from data_tools.inspect.diff import differences

    found = False
    for line in differences(arguments.cache, find_cache(arguments.other)):
        found = True
        say(line)
    if not found:
        say("no differences")
    return int(found)


def _remove(arguments: argparse.Namespace) -> int:
    from data_tools.inspect.remove import remove

    return remove(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from data_tools.inspect.export import export

    count = export(
        arguments.cache,
        arguments.html,
        num_samples=arguments.samples,
        seed=arguments.seed,
        checkpoint=arguments.checkpoint,
    )
    say(f"{arguments.html}: {count_of(count, 'sample')}, {human_bytes(arguments.html.stat().st_size)}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from pea.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    from data_tools.inspect.verify import verify  # it brings torch, which is slow to import
    from pea.cache.certificate import write_certificate

    found = verify(config, arguments.corpus, num_samples=arguments.samples, threshold=arguments.threshold)
    rows = [[name, f"{each['mean']:.2e}", f"{each['largest']:.2e}"] for name, each in found.errors.items()]
    say(table(["relative error", "mean", "largest"], rows))
    for problem in found.problems:
        say(f"PROBLEM {problem}")
    write_certificate(config.cache_dir(arguments.corpus), found)
    verdict = "agree" if found.passed else "DO NOT AGREE"
    say(f"{count_of(len(found.samples), 'sample')}: cache and live teacher {verdict} (threshold {found.threshold:g})")
    return 0 if found.passed else 1


def _copy(arguments: argparse.Namespace) -> int:
    from data_tools.inspect.copy import copy

    return copy(arguments.cache, arguments.destination, languages=arguments.language, blocks=arguments.block)


COMMANDS = {
    "info": _info,
    "ls": _ls,
    "show": _show,
    "check": _check,
    "diff": _diff,
    "remove": _remove,
    "copy": _copy,
    "export": _export,
    "verify": _verify,
}
"""Name -> what runs it; returns the exit code."""
