"""``pea data check``."""

from __future__ import annotations

import argparse

from data_tools.corpus.corpus_facts import CorpusFacts, look_at_tar
from data_tools.tables import human_bytes, say, table
from pea.corpus.places import expand_tars
from pea.corpus.reasons import REASONS
from pea.corpus.rules import ReadingRules
from stages.data.common import caption_fields

DESCRIPTION = (
    "Read a whole corpus as `pea cache` will, decoding every image: which tars are damaged, which samples would be "
    "left out and why, which languages there are. Exit code 1 if a tar is damaged or a sample unusable."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data check``."""
    add_corpus_arguments(parser)


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """The tars, and where their captions are."""
    parser.add_argument("tars", nargs="+", metavar="TARS", help="tars: paths, patterns, URLs")
    parser.add_argument(
        "--caption",
        action="append",
        default=[],
        metavar="LANGUAGE=FIELD",
        help="where captions are, as zh=caption_zh (may be repeated; default: all of the field captions)",
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Read everything; returns the exit code.

    Raises:
        CorpusError: there is no such tar, or two have one name.
    """
    facts = CorpusFacts()
    for tar in expand_tars(arguments.tars):
        look_at_tar(tar, facts, caption_fields(arguments), ReadingRules())
    say(f"{facts.num_tars} tars, {human_bytes(facts.num_bytes)}: {facts.usable} of {facts.seen} samples can be used")
    say(table(("language", "captions"), sorted(facts.languages.items())))
    if facts.dropped:
        say(table(("left out as", "samples", ""), [(r, n, REASONS[r]) for r, n in facts.dropped.most_common()]))
    for line in facts.named:
        say(f"left out: {line}")
    for line in facts.damaged:
        say(f"damaged: {line}")
    return 1 if facts.damaged or facts.dropped or not facts.seen else 0
