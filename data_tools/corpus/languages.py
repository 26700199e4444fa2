"""Which language a text is in, where the package ``py3langid`` is installed (``pip install 'pea-cache[data]'``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pea.errors import ConfigError

_LOOKED_AT = 50


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """None: not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def require_identifier(needed_by: str) -> None:
    """Make sure that languages can be told.

    Raises:
        ConfigError: the package is not installed.
    """
    if _identifier() is None:
        remedy = "Install it: pip install 'pea-cache[data]'."
        raise ConfigError("the package py3langid is not installed", where=needed_by, remedy=remedy)


def language_of(text: str) -> tuple[str, float]:
    """Language and confidence in [0, 1]. Needs ``require_identifier``."""
    language, confidence = _identifier().classify(text)
    return str(language), float(confidence)


def language_of_texts(texts: Sequence[str]) -> str | None:
    """The language that some texts together look like; None: cannot be told."""
    together = " ".join(texts[:_LOOKED_AT]).strip()
    return language_of(together)[0] if together and _identifier() is not None else None


@lru_cache(maxsize=1)
def known_languages() -> frozenset[str]:
    """Codes of the languages that can be told; none where the package is not installed."""
    model = _identifier()
    return frozenset() if model is None else frozenset(str(code) for code in model.nb_classes)
