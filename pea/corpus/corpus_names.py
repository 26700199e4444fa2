"""The corpora of a setup. Each has a cache of its own."""

from __future__ import annotations

from typing import Literal, get_args

CorpusName = Literal["parallel", "culture", "described"]
CORPUS_NAMES: tuple[CorpusName, ...] = get_args(CorpusName)
DISTILLED: tuple[CorpusName, ...] = ("parallel", "described")
"""Those for whose images the teacher is asked."""
