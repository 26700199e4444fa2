"""Make a corpus ready: what is done to captions and images before a cache is filled.

    pea data pack photos --out corpora/photos
    pea data clean 'corpora/photos/*.tar' --out clean --chinese simplified
    pea data route 'corpora/photos/*.tar' --out routes
    pea data translate 'corpora/photos/*.tar' --out zh --model checkpoints/nllb --from en=eng_Latn --to zh=zho_Hans
    pea data describe 'corpora/culture-zh/*.tar' --out described --model checkpoints/blip
    pea data prompts --out prompts

Each subcommand reads tars or tables and writes something new beside them; nothing that exists is changed. To go on
after a break, run the same command.
"""

from __future__ import annotations

import argparse
import importlib

COMMANDS = {
    "pack": "pack a folder, a table or other tars into the tars of a corpus",
    "captions": "bring captions of a table beside a corpus and its cache",
    "filter": "leave samples out by size, columns, captions, duplicates",
    "sample": "a small share of a corpus, for a trial run",
    "buckets": "propose aspect-ratio buckets from the images that are there",
    "check": "read a corpus as the cache will, and say what is wrong with it",
    "card": "the data card of a corpus, with a contact sheet",
    "clean": "write captions that are clean, the originals beside them",
    "route": "decide for each sample whether it is parallel or one of a culture, and say why",
    "translate": "translate captions with a local model",
    "describe": "describe culture images in English with a local model",
    "prompts": "copy the prompt sets that come with PEA-Cache into a folder",
}
"""Subcommand, and module of this package -> what it does."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``pea data``."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="WHAT")
    for name, about in COMMANDS.items():
        module = importlib.import_module(f"stages.data.{name}")
        module.add_arguments(commands.add_parser(name, help=about, description=module.DESCRIPTION))


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run one subcommand; returns the exit code."""
    return int(importlib.import_module(f"stages.data.{arguments.data_command}").run_arguments(arguments))
