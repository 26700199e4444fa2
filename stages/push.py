r"""Publish an adapter on the Hugging Face hub: configuration, weights and model card, and nothing else of its folder.

    pea push runs/sdxl-zh/adapter org/sdxl-zh --encoder OFA-Sys/chinese-clip-vit-huge-patch14 --licence apache-2.0 \
        --base stabilityai/stable-diffusion-xl-base-1.0 --dry-run

Encoder and base model are named as the hub has them, unless the adapter records that already: the encoder is compared
by content with the one that the adapter was trained with, the base model by shape. Scores and images of the run that
the folder lies in go onto the card; a card in your own words stays, and gets the front matter that it lacks. --dry-run
shows the files and the card, and uploads nothing. You are logged in by `hf auth login` or HF_TOKEN.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.command.arguments import local_path
from stages.command.common import command_main

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea push`."""
    parser.add_argument("adapter", type=local_path, metavar="FOLDER", help="the adapter's folder")
    parser.add_argument("repo", type=_repo, metavar="org/name", help="what it is to be called on the hub")
    parser.add_argument(
        "--encoder", action="append", metavar="org/name", help="its text encoder; twice for two (default: as recorded)"
    )
    parser.add_argument("--base", metavar="org/name", help="its diffusion model (default: as recorded)")
    parser.add_argument("--licence", type=_licence, metavar="ID", help="such as apache-2.0 (default: its card's)")
    parser.add_argument("--language", action="append", metavar="CODE", help="of its prompts (default: as recorded)")
    parser.add_argument("--private", action="store_true", help="make a new one private")
    parser.add_argument("--dry-run", action="store_true", help="show what would be published, and upload nothing")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        CheckpointError: something that others need is not known or not so, or the hub refuses.
    """
    from pea.pipeline.publishing import CARD, prepare, upload
    from stages.command.console import Console

    console = Console()
    with TemporaryDirectory(prefix="pea-push-") as temporary:
        files = prepare(
            arguments.adapter,
            Path(temporary),
            arguments.repo,
            encoders=arguments.encoder,
            base=arguments.base,
            licence=arguments.licence,
            languages=arguments.language,
        )
        for file in files:
            console.print(f"{file.stat().st_size:>12,} bytes  {file.name}")
        if arguments.dry_run:
            console.print(f"\n{CARD}:\n\n{(Path(temporary) / CARD).read_text('utf-8')}")
            console.print(f"nothing was uploaded to {arguments.repo} (--dry-run)")
        else:
            console.print(upload(Path(temporary), arguments.repo, private=arguments.private or None))
    return 0


def _repo(text: str) -> str:
    if not _REPO.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not org/name")
    return text


def _licence(text: str) -> str:
    if not _LICENCE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a licence as the hub spells it: apache-2.0, openrail++, other"
        )
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
