"""Rows that can be used are counted before the first is drawn."""

from __future__ import annotations

import pytest

from pea.corpus.rules import TextSource
from pea.corpus.texts import TextPart
from pea.errors import CorpusError
from pea.storage.location import Location
from stages.cluster.text_rows import usable_rows

SOURCE = TextSource(("t.csv",), (), "en", None, 100)


def part(num_rows: int, **left_out: int) -> TextPart:
    place = (SOURCE, Location.parse("t.csv"), 0, num_rows, (("en", "en"),), None)
    return TextPart("t-00000", *place, tuple(left_out.items()))


def test_counts_add_up() -> None:
    assert usable_rows([part(100), part(20)], 0.0, where="t.csv") == "120 texts in 2 parts"
    parts = [part(100, caption_missing=3), part(900, caption_missing=4, key_duplicate=2)]
    said = usable_rows(parts, 0.009, where="t.csv")
    assert said == "991 texts, 9 rows left out (caption_missing 7, key_duplicate 2) in 2 parts"
    with pytest.raises(CorpusError, match=r"at most 0\.80% .*; got 9 of 1,000 \(caption_missing 7, key_duplicate 2\)"):
        usable_rows(parts, 0.008, where="t.csv")


def test_none_is_refused_whatever_is_allowed() -> None:
    with pytest.raises(CorpusError, match=r"t\.csv: the corpus has no texts; got caption_missing 5"):
        usable_rows([part(5, caption_missing=5)], 1.0, where="t.csv")
    with pytest.raises(CorpusError, match="no texts; got tables without a row"):
        usable_rows([], 1.0, where="t.csv")
