"""The json of a sample: captions by language, and the size that the image had before somebody made it smaller."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import MAX_JSON_DEPTH, MAX_LANGUAGES
from pea.foreign_text import is_unicode

PLACEHOLDERS = frozenset(
    ("nan", "NaN", "NULL", "None", "N/A", "n/a", "<NA>")
    + ("#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!")
)
"""What programs write where a cell is empty or wrong. In other letters it may be a word: German "null" is zero."""
_LANGUAGE = re.compile(r"[A-Za-z0-9_-]{1,32}")
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_MAX_SIDE_PX = 1_000_000
_NOTHING: Mapping[str, str] = {}


def read_json(data: bytes) -> dict[str, Any]:
    """The one JSON object that a file holds.

    Raises:
        BadSampleError: it holds something else, or a name twice, or too many levels.
    """
    try:
        text = data.decode("utf-8-sig")
        if _is_deep(text):
            raise BadSampleError("json_unreadable", f"nested deeper than {MAX_JSON_DEPTH} levels")
        document = json.loads(text, object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise BadSampleError("json_not_utf8", str(error)) from None
    except ValueError as error:
        raise BadSampleError("json_unreadable", str(error)) from None
    if not isinstance(document, dict):
        raise BadSampleError("json_unreadable", f"a {type(document).__name__}, not an object")
    return document


def _is_deep(text: str) -> bool:
    """Whether brackets are nested too deep; counted before parsing, as parsers give up at a depth of their own."""
    if text.count("{") + text.count("[") <= MAX_JSON_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        depth += 1 if first in "[{" else -1 if first in "]}" else 0
        if depth > MAX_JSON_DEPTH:
            return True
    return False


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice")
    return document


def read_captions(
    document: Mapping[str, Any],
    fields: Mapping[str, str],
    required: Sequence[str],
    known: set[str],
    beside: Mapping[str, str] = _NOTHING,
) -> dict[str, str]:
    """Language -> caption, without empty ones.

    ``known``: the languages of the tar so far; grows. ``beside``: captions that count before those of the document.

    Raises:
        BadSampleError: a required one is missing, one is no text, or there are too many languages.
    """
    texts: dict[str, str] = {}
    for language, field in fields.items():
        value = _lookup(document, field)
        found = value if language == "*" and isinstance(value, dict) else {language: value}
        for each, text in found.items():
            if each == "*" or text is None or each in beside:
                continue
            if not isinstance(text, str) or not _LANGUAGE.fullmatch(each) or not is_unicode(text):
                raise BadSampleError("caption_not_text", f"{each!a}: {text!a}"[:200])
            if text.strip():
                texts[each] = text
    texts |= beside
    missing = [language for language in required if language not in texts]
    if missing:
        raise BadSampleError("caption_missing", ", ".join(missing))
    if len(known | texts.keys()) > MAX_LANGUAGES:
        raise BadSampleError("languages_too_many", f"{len(texts)} here, {len(known)} in the tar before")
    known.update(texts)
    return texts


def _lookup(document: Any, field: str) -> Any:
    for part in field.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def original_size(document: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) in px as the image was stored first, where the json says so, as img2dataset's does."""
    height, width = document.get("original_height"), document.get("original_width")
    sides = [side for side in (height, width) if isinstance(side, int) and not isinstance(side, bool)]
    return (sides[0], sides[1]) if len(sides) == 2 and all(0 < side <= _MAX_SIDE_PX for side in sides) else None
