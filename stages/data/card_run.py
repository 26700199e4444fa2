"""What ``pea data card`` does."""

from __future__ import annotations

import argparse

from data_tools.corpus.card import ContactSheet, html, markdown, summary
from data_tools.corpus.corpus_facts import CorpusFacts, look_at_tar
from data_tools.tables import say
from pea.corpus.places import expand_tars
from pea.corpus.rules import ReadingRules
from pea.storage.durable import write_text
from stages.data.common import caption_fields


def run(arguments: argparse.Namespace) -> int:
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
