"""What ``pea data check`` does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from data_tools.corpus.corpus_facts import CorpusFacts, look_at_tar, look_at_texts
from data_tools.tables import human_bytes, say, table
from pea.corpus.languages import remarks_on
from pea.corpus.places import expand_tars
from pea.corpus.reasons import REASONS
from pea.corpus.rules import ReadingRules, TextSource
from pea.corpus.tables import means_table
from pea.plurals import count_of
from stages.data.common import caption_fields

_ENGLISH = "en"
_ROWS_AT_ONCE = 1024


def run(arguments: argparse.Namespace) -> int:
    """Read everything; returns the exit code.

    Raises:
        CorpusError: there is no such tar or table, two have one name, or a table cannot be read.
    """
    facts, captions = CorpusFacts(), caption_fields(arguments)
    of_texts = all(map(means_table, arguments.tars))
    if of_texts:
        named = tuple(captions.items()) if arguments.caption else ()
        look_at_texts(TextSource(tuple(arguments.tars), named, _ENGLISH, None, _ROWS_AT_ONCE), facts)
    else:
        for tar in expand_tars(arguments.tars):
            look_at_tar(tar, facts, captions, ReadingRules())
    units, each = count_of(facts.num_tars, "part" if of_texts else "tar"), "rows" if of_texts else "samples"
    kind = " of texts without images" if of_texts else ""
    say(f"{units}{kind}, {human_bytes(facts.num_bytes)}: {facts.usable} of {facts.seen} {each} can be used")
    say(table(("language", "captions"), sorted(facts.languages.items())))
    for remark in [*remarks_on(facts.languages), *_without_english(facts)]:
        say(f"note: {remark}")
    if facts.dropped:
        say(table(("left out as", "samples", ""), [(r, n, REASONS[r]) for r, n in facts.dropped.most_common()]))
    for line in facts.named:
        say(f"left out: {line}")
    for line in facts.damaged:
        say(f"damaged: {line}")
    return 1 if facts.damaged or facts.dropped or not facts.seen else 0


def _without_english(facts: CorpusFacts) -> Iterator[str]:
    """A culture corpus needs none; of a parallel one, what the teacher cannot read is left out."""
    missing = facts.usable - facts.languages[_ENGLISH]
    if missing and facts.languages[_ENGLISH]:
        share = f"{missing} of {count_of(facts.usable, 'sample')} have no caption in {_ENGLISH}"
        yield f"{share}; a parallel corpus is cached without them (`pea data filter --need {_ENGLISH}` takes them out)"
    elif missing:
        yield (
            f"no caption in {_ENGLISH}: this can be a culture corpus; a parallel one needs English, which the teacher "
            "reads (`pea data translate` and `pea data describe` write it; "
            f"--caption {_ENGLISH}=FIELD names another field)"
        )
