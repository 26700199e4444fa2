"""``pea data card``."""

from __future__ import annotations

import argparse

from data_tools.corpus.card import ContactSheet, html, markdown, summary
from data_tools.corpus.corpus_facts import CorpusFacts, look_at_tar
from data_tools.tables import say
from pea.corpus.places import expand_tars
from pea.corpus.rules import ReadingRules
from pea.storage.durable import write_text
from stages.command.arguments import at_least_zero, local_path
from stages.data.check import add_corpus_arguments
from stages.data.common import caption_fields

DESCRIPTION = (
    "Write the data card of a corpus, card.md and card.html: counts, languages, lengths of captions, sizes of images, "
    "what cannot be used, every tar with its digest, and on the page a contact sheet."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data card``."""
    add_corpus_arguments(parser)
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="where the card goes")
    parser.add_argument("--title", default="Corpus", metavar="TEXT", help="name of the corpus (default: Corpus)")
    parser.add_argument(
        "--samples", type=at_least_zero, default=48, metavar="N", help="samples on the contact sheet (default: 48)"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Read everything, and write the card; returns 1 where a tar is damaged.

    Raises:
        CorpusError: there is no such tar, or two have one name.
    """
    facts, sheet = CorpusFacts(), ContactSheet(arguments.samples)
    for tar in expand_tars(arguments.tars):
        look_at_tar(tar, facts, caption_fields(arguments), ReadingRules(), sheet.add)
    write_text(arguments.out / "card.md", markdown(arguments.title, facts))
    write_text(arguments.out / "card.html", html(arguments.title, facts, sheet))
    say(f"{summary(facts)} {arguments.out / 'card.html'}")
    return 1 if facts.damaged else 0
