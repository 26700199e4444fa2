"""``pea data card``: its arguments."""

from __future__ import annotations

import argparse

from stages.command.arguments import at_least_zero, local_path
from stages.data.check import add_corpus_arguments

DESCRIPTION = (
    "Write the data card of a corpus, card.md and card.html: counts, languages, lengths of captions, sizes of images, "
    "what cannot be used, every tar with its digest, and on the page a contact sheet. With --out beside the tars, the "
    "manifest of their cache carries what card.json holds of it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data card``."""
    add_corpus_arguments(parser)
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="where the card goes")
    parser.add_argument("--title", default="Corpus", metavar="TEXT", help="name of the corpus (default: Corpus)")
    parser.add_argument("--licence", default="", metavar="TEXT", help="under which licence it may be used")
    parser.add_argument("--source", default="", metavar="TEXT", help="where it is from")
    parser.add_argument(
        "--samples", type=at_least_zero, default=48, metavar="N", help="samples on the contact sheet (default: 48)"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Do it; the libraries that it needs are imported only now. Raises what ``stages.data.card_run`` says."""
    from stages.data.card_run import run

    return run(arguments)
