"""Which script a text is written in, by the names that Unicode gives its letters, and which scripts a language uses."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cache

_HAN = "CJK"
_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "zh yue cmn zho wuu": (_HAN,),
    "ja jpn": (_HAN, "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    "ko kor": ("HANGUL", _HAN),
    "ru uk bg be mk ky tg mn": ("CYRILLIC",),
    "sr bs kk uz az tk": ("CYRILLIC", "LATIN", "ARABIC"),
    "el": ("GREEK",),
    "ar fa ur ps ug sd ckb": ("ARABIC",),
    "he yi": ("HEBREW",),
    "hi mr ne sa": ("DEVANAGARI",),
    "bn as": ("BENGALI",),
    "ta": ("TAMIL",),
    "te": ("TELUGU",),
    "kn": ("KANNADA",),
    "ml": ("MALAYALAM",),
    "gu": ("GUJARATI",),
    "or": ("ORIYA",),
    "pa": ("GURMUKHI", "ARABIC"),
    "si": ("SINHALA",),
    "th": ("THAI",),
    "lo": ("LAO",),
    "km": ("KHMER",),
    "my": ("MYANMAR",),
    "bo dz": ("TIBETAN",),
    "ka": ("GEORGIAN",),
    "hy": ("ARMENIAN",),
    "am ti": ("ETHIOPIC",),
    "en de fr es it pt nl pl cs sk sl hr hu ro tr vi id ms sv da nb nn no fi et lv lt is ga cy eu ca gl sq sw af tl": (
        "LATIN",
    ),
}
_OF_LANGUAGE = {language: scripts for languages, scripts in _SCRIPTS.items() for language in languages.split()}
_SHOWN = {_HAN: "Chinese characters", "KATAKANA-HIRAGANA": "Japanese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}


def base_language(code: str) -> str:
    """``zh`` of ``zh-TW`` or ``zho_Hans``-like codes' first part; ``en`` of ``described_en``."""
    parts = re.split(r"[-_]", code.lower())
    return parts[-1] if parts[0] == "described" else parts[0]


def scripts_of_language(code: str) -> tuple[str, ...] | None:
    """The scripts that a language is written in; None: not known here, so any."""
    return _OF_LANGUAGE.get(base_language(code))


def scripts_of_text(text: str) -> Counter[str]:
    """Script -> how many letters of the text are of it."""
    return Counter(script for script in map(_script_of, text) if script)


def share_in(text: str, scripts: tuple[str, ...]) -> float:
    """Share of a text's letters that are of some scripts; 1 where it has no letters."""
    found = scripts_of_text(text)
    total = sum(found.values())
    return sum(found[script] for script in scripts) / total if total else 1.0


def main_script(text: str) -> str:
    """The script of most letters, for a message."""
    found = scripts_of_text(text).most_common(1)
    name = found[0][0] if found else "no letters"
    return _SHOWN.get(name, name.capitalize() if found else name)


@cache
def _script_of(char: str) -> str:
    if not unicodedata.category(char).startswith("L"):
        return ""
    first = unicodedata.name(char, "").split(" ")[0]
    return {"FULLWIDTH": "LATIN", "HALFWIDTH": "KATAKANA", "IDEOGRAPHIC": _HAN}.get(first, first)
