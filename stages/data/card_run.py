"""What ``pea data card`` does."""

from __future__ import annotations

import argparse

from data_tools.corpus.card import About, ContactSheet, for_manifests, html, markdown, summary
from data_tools.corpus.corpus_facts import CorpusFacts, look_at_tar
from data_tools.tables import say
from pea.cache.cards import FILE_NAME
from pea.corpus.places import expand_tars
from pea.corpus.rules import ReadingRules
from pea.storage.durable import write_text
from stages.data.common import caption_fields


def run(arguments: argparse.Namespace) -> int:
    """Read everything, and write the card; returns 1 where a tar is damaged, or there is no sample at all.

    Raises:
        CorpusError: there is no such tar, or two have one name.
        ConfigError: a title, licence or source is too long.
    """
    facts, sheet = CorpusFacts(), ContactSheet(arguments.samples)
    for tar in expand_tars(arguments.tars):
        look_at_tar(tar, facts, caption_fields(arguments), ReadingRules(), sheet.add)
    about = About(arguments.title, arguments.licence, arguments.source)
    text, page = markdown(about, facts), html(about, facts, sheet)
    carried = for_manifests(about, facts, text, page)
    for name, content in (("card.md", text), ("card.html", page), (FILE_NAME, carried)):
        write_text(arguments.out / name, content)
    say(f"{summary(facts)} {arguments.out / 'card.html'}")
    for line in facts.damaged:
        say(f"damaged: {line}")
    return 1 if facts.damaged or not facts.seen else 0
