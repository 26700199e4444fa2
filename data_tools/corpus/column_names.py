"""Which column of a table is what, as far as names and values show it; a language is never guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from data_tools.corpus.image_bytes import stored_format
from data_tools.corpus.languages import language_of_texts
from pea.corpus.caption_fields import language_of_script
from pea.corpus.languages import LANGUAGE_NAMES, named_in_itself
from pea.corpus.tables import Row
from pea.errors import CorpusError

LANGUAGE = re.compile(r"[A-Za-z0-9_-]{1,32}")
_CODES_LISTED = (
    "af am ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it "
    "ja jv ka kk km kn ko ky la lb lo lt lv mg mk ml mn mr ms mt my ne nl no pa pl ps pt ro ru si sk sl "
    "so sq sr sv sw ta te th tl tr uk ur uz vi xh yi yo zh zu"
)
_CODES = frozenset(_CODES_LISTED.split())
_WORDS_NOT_CODES = frozenset({"id", "is", "no", "so", "la", "my", "he", "am", "be", "si", "et", "el"})
_CAPTION_WORDS = ("caption", "captions", "text", "texts", "txt", "alt", "title", "description", "desc", "prompt")
_FEWEST_IMAGE_BYTES = 64
_LANGUAGE_COLUMNS = frozenset({"language", "lang", "languages", "lang_code", "language_code"})


@dataclass(frozen=True)
class ColumnMapping:
    """Which column is what; names may be dotted."""

    image: str | None = None
    """Path of the image, or the image itself; None: the image lies beside the fields."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """Language -> column."""
    text: str | None = None
    """Column whose language another column says."""
    language: str | None = None
    """That other column."""

    def used(self) -> tuple[str, ...]:
        """Every column that it names."""
        return tuple(
            name for name in (self.image, *self.captions.values(), self.text, self.language) if name is not None
        )

    def lines(self) -> list[str]:
        """In words, for the one who is to agree."""
        found = [f"image: {self.image}"] if self.image else []
        found += [f"caption in {language}: {column}" for language, column in self.captions.items()]
        return found + ([f"caption: {self.text}, in the language of {self.language}"] if self.text else [])


def parse_mapping(words: Sequence[str]) -> ColumnMapping:
    """``image=COLUMN``, ``zh=COLUMN``, or ``text=COLUMN`` with ``language=COLUMN``.

    Raises:
        CorpusError: something else.
    """
    named = dict[str, str]()
    for word in words:
        name, equals, column = word.partition("=")
        if not equals or not column or not LANGUAGE.fullmatch(name) or name in named:
            raise CorpusError(
                "not a mapping of a column", got=word, expected="image=COLUMN or LANGUAGE=COLUMN, each once"
            )
        named[name] = column
    image, text, language = (named.pop(name, None) for name in ("image", "text", "language"))
    if (text is None) != (language is None):
        raise CorpusError("text=COLUMN and language=COLUMN belong together", got=" ".join(words))
    return ColumnMapping(image, named, text, language)


def propose_mapping(
    rows: Sequence[Row],
    given: ColumnMapping,
    finds_image: Callable[[str], bool] | None,
    *,
    language: str | None = None,
    captions: bool = True,
) -> ColumnMapping:
    """Complete what was given from names and values of some rows; named columns leave the others as they are found.

    ``finds_image``: whether a value names an image that is there; None: images do not come from the table.
    ``language``: of a column whose name says none. ``captions``: whether there have to be some.

    Raises:
        CorpusError: no column holds images, or captions, or nothing says in which language they are.
    """
    values = _flat_values(rows)
    image = given.image or (None if finds_image is None else _image_column(values, finds_image))
    if given.text or not captions:
        return ColumnMapping(image, given.captions, given.text, given.language)
    texts = {name: found for name, found in values.items() if name != image and _are_texts(found)}
    by_language = dict(given.captions)
    for name in texts:
        if name not in given.captions.values() and (found := language_of_column(name)):
            by_language.setdefault(found, name)
    if given.captions:
        return ColumnMapping(image, by_language)
    generic = min((name for name in texts if _generic_rank(name) is not None), key=_rank, default=None)
    said = next((name for name in texts if name.rpartition(".")[2].lower() in _LANGUAGE_COLUMNS), None)
    if generic and said:
        return ColumnMapping(image, by_language, generic, said)
    if generic and (language or not by_language):
        by_language.setdefault(language or _refuse_to_guess(generic, texts[generic]), generic)
    if not by_language:
        shown = ", ".join(values) or "none"
        empty = ", ".join(name for name, found in values.items() if not found and language_of_column(name))
        remedy = "Name it: --map zh=COLUMN; or pack images alone: --no-captions."
        raise CorpusError(
            "no column looks like captions",
            expected=f"one of {shown}",
            got=f"no text in the first rows of {empty}" if empty else None,
            remedy=remedy,
        )
    return ColumnMapping(image, by_language)


def language_of_column(name: str) -> str | None:
    """``zh`` of ``caption_zh``, ``zh``, ``Chinese caption``, ``中文``; ``zh-Hans`` of ``captions.zh-Hans``; or None."""
    outer, dot, inner = name.rpartition(".")
    if dot and outer.lower() in _CAPTION_WORDS and LANGUAGE.fullmatch(inner):
        return inner
    parts = [part for part in re.split(r"[^a-zà-ÿ]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) if part]
    parts = [part for part in parts if part not in ("column",)]
    words = [part for part in parts if part in _CAPTION_WORDS]
    for part in parts:
        if part in LANGUAGE_NAMES:
            return LANGUAGE_NAMES[part]
        sure = len(parts) == 1 + len(words) and (words or part not in _WORDS_NOT_CODES)
        if part in _CODES and (sure or (words and part not in _WORDS_NOT_CODES)):
            return part
    return named_in_itself(name)


def overlooked_captions(rows: Sequence[Row], mapping: ColumnMapping, others: Sequence[str]) -> dict[str, str]:
    """Column -> language: no caption by its name, and by its script maybe one in a language that has none yet."""
    values = _flat_values(rows)
    found = {name: language_of_script(filter(_is_text, values.get(name, ()))) for name in others}
    return {name: language for name, language in found.items() if language and language not in mapping.captions}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _refuse_to_guess(column: str, texts: Sequence[Any]) -> str:
    looks = language_of_texts([text for text in texts if isinstance(text, str)])
    guess = f"; its texts look like {looks}" if looks else ""
    raise CorpusError(
        f"nothing says in which language the column {column} is{guess}",
        remedy=f"Say it: --language {looks or 'CODE'}, or --map {looks or 'CODE'}={column}.",
    )


def _flat_values(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Column -> values that are there; objects by their dotted names as well."""
    values = dict[str, list[Any]]()
    for row in rows:
        for name, value in row.values.items():
            column = values.setdefault(name, [])
            if value is not None:
                column.append(value)
            if isinstance(value, Mapping) and not {"bytes", "path"} <= value.keys():
                for inner, each in value.items():
                    values.setdefault(f"{name}.{inner}", []).extend([] if each is None else [each])
    return values


def _are_texts(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str | list) for value in values)


def _generic_rank(name: str) -> int | None:
    parts = re.split(r"[^a-z]+", name.lower())
    ranks = [_CAPTION_WORDS.index(part) for part in parts if part in _CAPTION_WORDS]
    return min(ranks) if ranks and language_of_column(name) is None else None


def _rank(name: str) -> tuple[int, int]:
    return _generic_rank(name) or 0, len(name)


def _image_column(values: Mapping[str, Sequence[Any]], finds_image: Callable[[str], bool]) -> str:
    """The column of which the most values are images, or name some that are there."""
    for is_image in (partial(_is_image, finds_image=finds_image), _may_be_image):
        counts = Counter({name: sum(map(is_image, found)) for name, found in values.items()})
        best, count = max(counts.items(), key=lambda each: each[1], default=("", 0))
        if count:
            return best
    examples = next((f"{name}: {found[0]!r}"[:80] for name, found in values.items() if found), "no values")
    raise CorpusError(
        "no column holds images or names files of the folder",
        got=f"{', '.join(values)} ({examples})",
        remedy="Give the images' folder with --images (archives in it have to be unpacked), or the column with --map "
        "image=COLUMN.",
    )


def _is_image(value: Any, finds_image: Callable[[str], bool]) -> bool:
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes) or (
            isinstance(value.get("path"), str) and finds_image(value["path"])
        )
    if isinstance(value, bytes):
        return stored_format(value) is not None
    return isinstance(value, str) and finds_image(value)


def _may_be_image(value: Any) -> bool:
    """Whether bytes may be an image of a rarer kind."""
    return isinstance(value, bytes) and len(value) > _FEWEST_IMAGE_BYTES
