"""How alike two texts of one language are, by their runs of characters."""

from __future__ import annotations

import unicodedata
from collections import Counter

_LONGEST = 6
_BETA = 2.0


def chrf(text: str, reference: str) -> float:
    """Character n-gram F-score in [0, 1], n = 1 ... 6, recall twice as important; case and spaces do not count.

    Source: M. Popović, "chrF: character n-gram F-score for automatic MT evaluation", 2015. Orders that neither text is
    long enough for are left out, as in sacreBLEU.
    """
    one, other = _plain(text), _plain(reference)
    if not one or not other:
        return float(one == other)
    scores = []
    for length in range(1, _LONGEST + 1):
        found, wanted = _runs(one, length), _runs(other, length)
        if found and wanted:
            scores.append(_f_score((found & wanted).total(), found.total(), wanted.total()))
    return sum(scores) / len(scores)


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _runs(text: str, length: int) -> Counter[str]:
    return Counter(text[start : start + length] for start in range(len(text) - length + 1))


def _f_score(common: int, num_found: int, num_wanted: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / num_found, common / num_wanted
    return (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)
