"""The captions of a row, a json or a text as those of an item; what is none, and what is left out, is noted."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable
from typing import Any

from data_tools.corpus.column_names import LANGUAGE, ColumnMapping
from data_tools.corpus.item import Item, Problem
from pea.corpus.captions import PLACEHOLDERS
from pea.foreign_text import is_unicode


def take_captions(item: Item, get: Callable[[str], Any], mapping: ColumnMapping) -> None:
    """Give an item the captions that are in some columns, or say what is wrong with them."""
    columns = list(mapping.captions.items())
    if mapping.text and mapping.language:
        said = get(mapping.language)
        code = str(said or "").strip()
        if LANGUAGE.fullmatch(code):
            columns.append((code, mapping.text))
        elif get(mapping.text):
            item.problem = Problem("language_unknown", f"{mapping.language}: {said!r}"[:200])
    for language, column in columns:
        value = get(column)
        value = _first_of(item, value) if isinstance(value, list) else value
        if value is None:
            continue
        if not isinstance(value, str) or not is_unicode(value):
            item.problem = Problem("caption_not_text", f"{column}: {value!r}"[:200])
        elif value.strip():
            take_caption(item, language, value)


def _first_of(item: Item, values: list[Any]) -> Any:
    """The first of several captions that says something; that there were more is noted."""
    found = [each for each in values if each and not (isinstance(each, str) and _says_nothing(each))]
    if len(found) > 1:
        item.notes.append("lists of several captions, of which the first is taken")
    return found[0] if found else next(iter(values), None)


def _says_nothing(text: str) -> bool:
    return not text.strip() or _is_placeholder(text) or not _has_visible(text)


def _is_placeholder(text: str) -> bool:
    return text.strip() in PLACEHOLDERS


def _has_visible(text: str) -> bool:
    return text.isprintable() or any(unicodedata.category(char)[0] not in "CZ" for char in set(text))


def take_caption(item: Item, language: str, text: str) -> None:
    """Give an item a caption, unless it says nothing, or one is there; what a person should know of it is noted."""
    if _is_placeholder(text):
        item.notes.append("captions that are a placeholder (nan, NULL, N/A, #REF!, ...), taken for none")
        return
    if not _has_visible(text):
        item.notes.append("captions of control characters alone, taken for none")
        return
    if any(unicodedata.category(char) == "Cc" for char in set(text) if not (char.isspace() or char.isprintable())):
        item.notes.append("captions with control characters, which `pea data clean` mends")
    if language in item.captions:
        if item.captions[language] != text:
            item.notes.append("further captions in a language that the image has one in, left out")
        return
    item.captions[language] = text
    if "&" in text and html.unescape(text) != text:
        item.notes.append("captions with HTML entities, which `pea data clean` mends")
