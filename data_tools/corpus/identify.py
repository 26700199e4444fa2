"""The language of a text, where the package py3langid is installed; without it, scripts alone tell languages apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple


class Identifier(NamedTuple):
    """What tells languages."""

    identify: Callable[[str], tuple[str, float]]
    """Text -> code of its language, and the confidence in [0, 1]."""
    languages: tuple[str, ...]
    """All that it tells."""


@lru_cache(maxsize=1)
def identifier() -> Identifier | None:
    """None: the package is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def identify(text: str) -> tuple[str, float]:
        language, confidence = model.classify(text)
        return str(language), float(confidence)

    return Identifier(identify, tuple(model.labels))
