"""Which field of a json, or column of a table, holds captions in which language: a proposal, never a decision."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pea.corpus.languages import language_named

_MOST_DEPTH = 4
_NO_CAPTION = "{["  # as an object or a list begins that was written into a cell
_GENERAL = ("caption", "captions", "text", "txt", "prompt", "description", "alt", "title")
"""Names of a caption that name no language."""
_SCRIPTS = (
    ("HIRAGANA", "ja"), ("KATAKANA", "ja"), ("HANGUL", "ko"), ("CJK", "zh"), ("CYRILLIC", "ru"), ("ARABIC", "ar"),
    ("DEVANAGARI", "hi"), ("THAI", "th"), ("HEBREW", "he"), ("GREEK", "el"),
)  # fmt: skip


def proposed_mapping(texts: Mapping[str, Sequence[str]], languages: Sequence[str]) -> dict[str, str]:
    """Language -> field of the json, as far as names and scripts tell.

    ``texts``: field -> some of its texts; ``languages``: what is wanted, first the one in which the texts are of a
    field that names none.
    """
    found: dict[str, str] = {}
    general = []
    for name in sorted(texts, key=lambda name: (-len(texts[name]), len(name), name)):
        language = language_named(name.removeprefix("captions."))
        if language and (language != "id" or "id" in languages):  # else a field of ids
            found.setdefault(language, name)
        elif name.rpartition(".")[2].lower() in _GENERAL:
            general.append(name)
    unnamed = "en" if languages[0] in dict(_SCRIPTS).values() else languages[0]
    for name in general:
        found.setdefault(language_of_script(texts[name]) or unnamed, name)
    return {language: found[language] for language in sorted(found, key=lambda each: (each not in languages, each))}


def texts_within(document: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    """Dotted field -> text, of every text in a json that is not empty."""
    for name, value in document.items():
        if isinstance(value, str) and value.strip() and value.strip()[0] not in _NO_CAPTION:
            yield prefix + name, value
        elif isinstance(value, dict) and depth < _MOST_DEPTH:
            yield from texts_within(value, f"{prefix}{name}.", depth + 1)


def language_of_script(texts: Iterable[str]) -> str | None:
    """The language whose script most letters of some texts are in, where that tells one."""
    counts: Counter[str | None] = Counter()
    for text in islice(texts, 20):
        for letter in filter(str.isalpha, text[:200]):
            name = unicodedata.name(letter, "")
            counts[next((language for script, language in _SCRIPTS if name.startswith(script)), None)] += 1
    if counts["ja"] and counts["ja"] + counts["zh"] > counts[None]:
        return "ja"
    return counts.most_common(1)[0][0] if counts else None
