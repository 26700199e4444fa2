"""``pea inspect``: look into a cache, check it, repair it, take samples down.

Starts without torch, ray or diffusers; only the pictures of ``show`` and ``verify`` load what they need.
"""

from __future__ import annotations

import argparse

from data_tools.inspect.commands import COMMANDS, find_cache
from data_tools.tables import human_bytes, table
from pea.corpus.corpus_names import CORPUS_NAMES
from stages.command.arguments import above_zero, add_config_option, at_least_one, at_least_zero, local_path

_VERIFY = (
    "Make some samples again, from the tar through every frozen model, and compare them with the cache. "
    "The result is stored in the cache as certificate.json. Exit code 1 if they do not agree."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``pea inspect``."""
    commands = parser.add_subparsers(dest="inspect_command", required=True, metavar="WHAT")

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
        sub.add_argument("cache", metavar="CACHE", help="cache (or run folder with one), a path or a URL")
        return sub

    info = command("info", "identity, counts, sizes, drop rates, coverage of the timesteps")
    info.add_argument("--json", action="store_true", help="everything, as one JSON object")
    info.add_argument("--get", metavar="NAME", help="one value, by dotted name, as samples.kept")
    listing = command("ls", "list the shards, or the samples of one tar")
    listing.add_argument("tar", nargs="?", metavar="TAR", help="name of a tar")
    listing.add_argument(
        "--dropped", nargs="?", const="", metavar="REASON", help="what was left out, of all tars, by reason; or for one"
    )
    show = command("show", "one sample: captions, draws, statistics, pictures")
    show.add_argument("key", metavar="KEY", help="tar/key, or a key that occurs in one tar")
    show.add_argument("--pictures", type=local_path, metavar="DIR", help="write latents and feature maps as PNG")
    show.add_argument(
        "--checkpoint", type=local_path, metavar="DIR", help="decode the latent with this pipeline's VAE as well"
    )
    check = command("check", "compare every byte, row and key with what it must be; exit code 1 on any damage")
    check.add_argument("--repair", action="store_true", help="re-queue exactly the damaged shards for `pea cache`")
    check.add_argument("--jobs", type=at_least_one, metavar="N", help="threads (default: one per CPU)")
    check.add_argument("--tars", nargs="+", default=[], metavar="TAR", help="compare the keys with these tars as well")
    check.add_argument("--json", action="store_true", help="the problems, as one JSON object")
    diff = command("diff", "what differs between two caches, in identity and in content; exit code 1 if anything does")
    diff.add_argument("other", metavar="OTHER", help="the other cache")
    _add_remove_arguments(command("remove", "take samples down: rewrite their shards without them, for good"))

    copy = command(
        "copy", "copy a cache to another place, every file verified; again: only what is missing or has changed"
    )
    copy.add_argument("destination", metavar="DESTINATION", help="folder or URL that becomes the copy")
    copy.add_argument(
        "--language",
        action="append",
        default=[],
        metavar="LANGUAGE",
        help="captions of this language alone (may be repeated); the teacher's own are always kept",
    )
    copy.add_argument(
        "--block", action="append", default=[], metavar="BLOCK", help="features of this block alone (may be repeated)"
    )
    export = command("export", "write a page to browse the cache in a browser")
    export.add_argument("--html", type=local_path, required=True, metavar="FILE", help="the page to write")
    export.add_argument("--samples", type=at_least_zero, default=24, metavar="N", help="samples to show (default: 24)")
    export.add_argument("--seed", type=int, default=0, metavar="N", help="seed of their choice (default: 0)")
    export.add_argument(
        "--checkpoint", type=local_path, metavar="DIR", help="decode the latents with this pipeline's VAE"
    )

    verify = commands.add_parser(
        "verify", help="make samples again with the live teacher and compare", description=_VERIFY
    )
    add_config_option(verify)
    verify.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    verify.add_argument("--corpus", choices=CORPUS_NAMES, default="parallel", help="which cache")
    verify.add_argument(
        "--samples", type=at_least_one, default=8, metavar="N", help="samples to make again (default: 8)"
    )
    verify.add_argument(
        "--threshold",
        type=above_zero,
        default=0.01,
        metavar="X",
        help="largest relative error of a row (default: 0.01)",
    )


def _add_remove_arguments(remove: argparse.ArgumentParser) -> None:
    remove.add_argument("keys", nargs="*", metavar="TAR/KEY", help="samples")
    remove.add_argument("--from", dest="key_file", type=local_path, metavar="FILE", help="more samples, one a line")
    remove.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="samples by a field of their json or of the table: FIELD=VALUE, or !=, <, <=, >, >= (quote these)",
    )
    remove.add_argument(
        "--opt-out",
        type=local_path,
        action="append",
        default=[],
        metavar="FILE",
        help="samples by a list of URLs and hashes (md5, sha256, sha512): a text file, one a line, or a table "
        "with columns of these names",
    )
    source = remove.add_mutually_exclusive_group()
    source.add_argument(
        "--tars", nargs="+", default=[], metavar="TAR", help="the whole corpus, where --where and --opt-out then look"
    )
    source.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="FILE",
        help="a table (CSV, TSV, JSONL, Parquet, Arrow) where they look, with a column key, and a column tar where a "
        "key is in several tars",
    )
    really = remove.add_mutually_exclusive_group()
    really.add_argument("--dry-run", action="store_true", help="say how many samples of which tars (the default)")
    really.add_argument("--yes", action="store_true", help="really do it")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run one subcommand; returns the exit code: 0 healthy, 1 damage or a difference."""
    if "cache" in arguments:
        arguments.cache = find_cache(arguments.cache)
    return int(COMMANDS[arguments.inspect_command](arguments))


def run(arguments: argparse.Namespace) -> int:
    """As ``run_arguments``."""
    return run_arguments(arguments)


__all__ = ["add_arguments", "find_cache", "human_bytes", "run", "run_arguments", "table"]
