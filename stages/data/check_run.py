"""What ``pea data check`` does."""

from __future__ import annotations

import argparse

from data_tools.corpus.corpus_facts import CorpusFacts, look_at_tar
from data_tools.tables import human_bytes, say, table
from pea.corpus.languages import remarks_on
from pea.corpus.places import expand_tars
from pea.corpus.reasons import REASONS
from pea.corpus.rules import ReadingRules
from pea.plurals import count_of
from stages.data.common import caption_fields


def run(arguments: argparse.Namespace) -> int:
    """Read everything; returns the exit code.

    Raises:
        CorpusError: there is no such tar, or two have one name.
    """
    facts = CorpusFacts()
    for tar in expand_tars(arguments.tars):
        look_at_tar(tar, facts, caption_fields(arguments), ReadingRules())
    say(
        f"{count_of(facts.num_tars, 'tar')}, {human_bytes(facts.num_bytes)}: "
        f"{facts.usable} of {facts.seen} samples can be used"
    )
    say(table(("language", "captions"), sorted(facts.languages.items())))
    for remark in remarks_on(facts.languages):
        say(f"note: {remark}")
    if facts.dropped:
        say(table(("left out as", "samples", ""), [(r, n, REASONS[r]) for r, n in facts.dropped.most_common()]))
    for line in facts.named:
        say(f"left out: {line}")
    for line in facts.damaged:
        say(f"damaged: {line}")
    return 1 if facts.damaged or facts.dropped or not facts.seen else 0
