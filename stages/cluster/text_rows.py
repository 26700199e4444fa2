"""How many rows of a corpus of texts can be used: all are read before the first is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pea.corpus.texts import TextPart
from pea.errors import CorpusError
from pea.plurals import count_of


def usable_rows(parts: Sequence[TextPart], max_dropped_fraction: float, *, where: str) -> str:
    """In words, for a person. ``where``: the tables.

    Raises:
        CorpusError: there is none, or a larger share would be left out than a run may leave out.
    """
    left_out, num_rows = Counter[str](), sum(part.num_rows for part in parts)
    for part in parts:
        left_out.update(dict(part.left_out))
    num_usable = num_rows - left_out.total()
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in left_out.most_common())
    if not num_usable:
        raise CorpusError("the corpus has no texts", where=where, got=reasons or "tables without a row")
    if left_out.total() > max_dropped_fraction * num_rows:
        raise CorpusError(
            "too many rows would be left out",
            where=where,
            expected=f"at most {max_dropped_fraction:.2%} (cache.max_dropped_fraction)",
            got=f"{left_out.total():,} of {num_rows:,} ({reasons})",
            remedy="Correct them or take them out, or raise cache.max_dropped_fraction.",
        )
    without = f", {count_of(left_out.total(), 'row')} left out ({reasons})" if left_out else ""
    return f"{count_of(num_usable, 'text')}{without} in {count_of(len(parts), 'part')}"
