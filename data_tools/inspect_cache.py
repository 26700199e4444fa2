"""``pea inspect``: look into a cache, check it, repair it, take samples down.

Starts without torch, ray or diffusers; only the pictures of ``show`` and ``verify`` load what they need.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pea.cache import Cache
from pea.cache.manifest import FILE_NAME, read_manifest
from pea.errors import CacheError

_SHOWN_PROBLEMS = 50
_VERIFY = (
    "Make some samples again, from the tar through every frozen model, and compare them with the cache. "
    "The result is stored in the cache as certificate.json. Exit code 1 if they do not agree."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``pea inspect``."""
    commands = parser.add_subparsers(dest="inspect_command", required=True, metavar="WHAT")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        sub.add_argument("cache", type=Path, metavar="CACHE", help="cache directory (or a run folder with one)")
        return sub

    info = command("info", "identity, counts, sizes, drop rates, coverage of the timesteps")
    info.add_argument("--json", action="store_true", help="everything, as one JSON object")
    info.add_argument("--get", metavar="NAME", help="one value, by dotted name, as samples.kept")
    listing = command("ls", "list the shards, or the samples of one tar")
    listing.add_argument("tar", nargs="?", metavar="TAR", help="name of a tar")
    show = command("show", "one sample: captions, draws, statistics, pictures")
    show.add_argument("key", metavar="KEY", help="tar/key, or a key that occurs in one tar")
    show.add_argument("--pictures", type=Path, metavar="DIR", help="write latents and feature maps as PNG")
    show.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="decode the latent with this pipeline's VAE as well"
    )
    check = command("check", "compare every byte, row and key with what it must be; exit code 1 on any damage")
    check.add_argument("--repair", action="store_true", help="re-queue exactly the damaged shards for `pea cache`")
    check.add_argument("--jobs", type=int, metavar="N", help="threads (default: one per CPU)")
    check.add_argument("--tars", nargs="+", default=[], metavar="TAR", help="compare the keys with these tars as well")
    check.add_argument("--json", action="store_true", help="the problems, as one JSON object")
    diff = command("diff", "what differs between two caches, in identity and in content; exit code 1 if anything does")
    diff.add_argument("other", type=Path, metavar="OTHER", help="the other cache")
    remove = command("remove", "take samples down: rewrite their shards without them, for good")
    remove.add_argument("keys", nargs="+", metavar="TAR/KEY", help="samples")
    remove.add_argument("--yes", action="store_true", help="really do it")

    export = command("export", "write a page to browse the cache in a browser")
    export.add_argument("--html", type=Path, required=True, metavar="FILE", help="the page to write")
    export.add_argument("--samples", type=int, default=24, metavar="N", help="samples to show (default: 24)")
    export.add_argument("--seed", type=int, default=0, metavar="N", help="seed of their choice (default: 0)")
    export.add_argument("--checkpoint", type=Path, metavar="DIR", help="decode the latents with this pipeline's VAE")

    verify = commands.add_parser(
        "verify", help="make samples again with the live teacher and compare", description=_VERIFY
    )
    verify.add_argument("--config", type=Path, required=True, metavar="FILE", help="the setup's YAML file")
    verify.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    verify.add_argument("--corpus", choices=("parallel", "culture"), default="parallel", help="which cache")
    verify.add_argument("--samples", type=int, default=8, metavar="N", help="samples to make again (default: 8)")
    verify.add_argument(
        "--threshold", type=float, default=0.01, metavar="X", help="largest relative error of a row (default: 0.01)"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run one subcommand; returns the exit code: 0 healthy, 1 damage or a difference."""
    if "cache" in arguments:
        arguments.cache = find_cache(arguments.cache)
    return int(_COMMANDS[arguments.inspect_command](arguments))


def run(arguments: argparse.Namespace) -> int:
    """As ``run_arguments``."""
    return run_arguments(arguments)


def find_cache(path: Path) -> Path:
    """The cache that a path means: itself, or the parallel cache of a run folder.

    Raises:
        CacheError: there is none.
    """
    for candidate in (path, path / "cache" / "parallel", path / "parallel"):
        if (candidate / FILE_NAME).exists():
            return candidate
    raise CacheError("no cache here", where=path, remedy="Give the folder that holds manifest.json.")


def human_bytes(count: float) -> str:
    """``1234567`` -> ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of text; numbers and what follows the first column are aligned to the right."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def _info(arguments: argparse.Namespace) -> int:
    from data_tools.inspect_info import collect, lookup, render

    facts = collect(arguments.cache)
    if arguments.get:
        value = lookup(facts, arguments.get)
        print(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    elif arguments.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print(render(facts))
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    cache = Cache(arguments.cache, read_manifest(arguments.cache))
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
        print(table(["shard", "kind", "draws", "samples", "records", "dropped", "size"], rows))
        return 0
    shard = next((shard for shard in cache.shards if shard.tar == arguments.tar), None)
    if shard is None:
        raise CacheError("no such finished shard", where=arguments.cache, got=arguments.tar)
    for bucket in shard.buckets.values():
        captions = bucket.captions(bucket.languages[0]) if bucket.languages else [""] * bucket.num_samples
        for key, caption in zip(bucket.keys, captions, strict=True):
            print(f"{shard.tar}/{key}  {bucket.name}  {caption}")
    for key, reason, detail in shard.record.dropped:
        print(f"{shard.tar}/{key}  dropped: {reason}  {detail}".rstrip())
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from data_tools.inspect_show import find_sample, render, write_pictures

    sample = find_sample(Cache.open(arguments.cache, partial=True), arguments.key)
    print(render(sample))
    if arguments.pictures:
        for path in write_pictures(sample, arguments.pictures, arguments.checkpoint):
            print(f"wrote {path}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from pea.cache.audit import audit, repair
    from pea.samples import expand_tars

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\rchecked {done} of {total} shards", end="\n" if done == total else "", file=sys.stderr)

    tars = expand_tars(arguments.tars) if arguments.tars else []
    found = audit(arguments.cache, jobs=arguments.jobs, tars=tars, progress=progress)
    if arguments.json:
        print(json.dumps({**vars(found), "problems": [vars(each) for each in found.problems]}, ensure_ascii=False))
    else:
        for problem in found.problems[:_SHOWN_PROBLEMS]:
            print(problem)
        if len(found.problems) > _SHOWN_PROBLEMS:
            print(f"... and {len(found.problems) - _SHOWN_PROBLEMS} more")
        print(
            f"{found.num_parts} shards, {found.num_samples} samples, {found.num_files} files, "
            f"{human_bytes(found.num_bytes)}: {_count(len(found.problems), 'problem')}"
        )
    if arguments.repair and found.damaged_parts:
        parts = repair(Cache(arguments.cache, read_manifest(arguments.cache)), found)
        names = ", ".join(f"{tar}/{part}" for tar, part in parts)
        print(f"re-queued {_count(len(parts), 'shard')}: {names}; run `pea cache` to make them again", file=sys.stderr)
    return 1 if found.problems else 0


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _diff(arguments: argparse.Namespace) -> int:
    from data_tools.inspect_diff import differences

    found = False
    for line in differences(arguments.cache, find_cache(arguments.other)):
        found = True
        print(line)
    if not found:
        print("no differences")
    return int(found)


def _remove(arguments: argparse.Namespace) -> int:
    from pea.cache.takedown import remove_samples

    cache = Cache.open(arguments.cache, partial=True)
    by_tar: dict[str, list[str]] = {}
    for name in arguments.keys:
        tar = next((tar for tar in cache.identity.tars if name.startswith(f"{tar}/")), None)
        if tar is None:
            raise CacheError("no such sample", where=arguments.cache, expected="TAR/KEY", got=name)
        by_tar.setdefault(tar, []).append(name.removeprefix(f"{tar}/"))
    if not arguments.yes:
        print(f"would remove {_count(len(arguments.keys), 'sample')} for good; add --yes to do it")
        return 0
    removed = [f"{tar}/{key}" for tar, keys in by_tar.items() for key in remove_samples(cache, tar, keys)]
    for name in arguments.keys:
        print(f"{name}  {'removed' if name in removed else 'was not stored; will not be'}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from data_tools.inspect_export import export

    count = export(
        arguments.cache,
        arguments.html,
        num_samples=arguments.samples,
        seed=arguments.seed,
        checkpoint=arguments.checkpoint,
    )
    print(f"{arguments.html}: {_count(count, 'sample')}, {human_bytes(arguments.html.stat().st_size)}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from data_tools.inspect_verify import verify
    from pea.cache.certificate import write_certificate
    from pea.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    found = verify(config, arguments.corpus, num_samples=arguments.samples, threshold=arguments.threshold)
    rows = [[name, f"{each['mean']:.2e}", f"{each['largest']:.2e}"] for name, each in found.errors.items()]
    print(table(["relative error", "mean", "largest"], rows))
    for problem in found.problems:
        print(f"PROBLEM {problem}")
    write_certificate(config.cache_dir(arguments.corpus), found)
    verdict = "agree" if found.passed else "DO NOT AGREE"
    print(f"{_count(len(found.samples), 'sample')}: cache and live teacher {verdict} (threshold {found.threshold:g})")
    return 0 if found.passed else 1


_COMMANDS = {
    "info": _info,
    "ls": _ls,
    "show": _show,
    "check": _check,
    "diff": _diff,
    "remove": _remove,
    "export": _export,
    "verify": _verify,
}
