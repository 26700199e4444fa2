"""Rules by which samples are left out of a corpus: each looks at one thing and says why, or says nothing."""

from __future__ import annotations

import operator
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from data_tools.corpus.image_bytes import open_image
from data_tools.corpus.languages import known_languages, language_of
from data_tools.corpus.tar_items import TarSample
from data_tools.corpus.tar_to_tar import PartRecord
from pea.corpus.tables import Row
from pea.errors import CorpusError
from pea.plurals import count_of

_COMPARISON = re.compile(r"\s*(\S.*?)\s*(<=|>=|!=|==|<|>)\s*(\S.*?)\s*")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_SHORTEST_PROMPT = 20
"""Letters of a prompt that also counts where it is a part of a caption."""
Rule = Callable[[TarSample, PartRecord], str | None]


def image_size(data: bytes) -> tuple[int, int] | None:
    """(Height, width) in px as stored, from the first bytes; None: no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(data) as image:
                return image.height, image.width
    except Exception:  # noqa: BLE001 (a decoder of damaged bytes may raise anything)
        return None


def size_rule(min_side_px: int | None, max_aspect: float | None) -> Rule:
    """Small images, and long ones."""

    def rule(sample: TarSample, _record: PartRecord) -> str | None:
        size = image_size(sample.image)
        if size is None:
            return "no image of which the size can be read"
        if min_side_px is not None and min(size) < min_side_px:
            return f"shorter side below {min_side_px} px"
        if max_aspect is not None and max(size) > max_aspect * min(size):
            return f"longer than {max_aspect:g} times the shorter side"
        return None

    return rule


@dataclass(frozen=True)
class ColumnRule:
    """What a number or a text in the json has to be."""

    column: str
    comparison: str
    wanted: float | str

    @classmethod
    def parse(cls, text: str) -> ColumnRule:
        """``pwatermark<0.5``, ``columns.similarity >= 0.3``, ``nsfw == UNLIKELY``.

        Raises:
            CorpusError: something else.
        """
        found = _COMPARISON.fullmatch(text)
        if not found:
            expected = "COLUMN<=VALUE, with <, <=, >, >=, == or !="
            raise CorpusError("not a rule for a column", got=text, expected=expected)
        column, comparison, value = found.groups()
        number = _number(value)
        if number is None and comparison not in ("==", "!="):
            raise CorpusError("only numbers are larger or smaller", got=text)
        return cls(column, comparison, value if number is None else number)

    def __call__(self, sample: TarSample, _record: PartRecord) -> str | None:
        """A sample that lacks the column is left out too, under a reason of its own."""
        value = Row("", 0, sample.document).get(self.column)
        if value is None or value == "":
            return f"no {self.column}"
        found: Any = _number(value) if isinstance(self.wanted, float) else str(value)
        if found is None:
            return f"{self.column} is no number"
        return None if _OPERATORS[self.comparison](found, self.wanted) else f"not {self}"

    def __str__(self) -> str:
        return f"{self.column} {self.comparison} {self.wanted if isinstance(self.wanted, str) else f'{self.wanted:g}'}"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class CaptionRule:
    """Captions that are too short or long, or not in their language, go; samples without (needed) captions too."""

    min_characters: int | None = None
    max_characters: int | None = None
    confidence: float | None = None
    """Least confidence in [0, 1] that a caption is in its language."""
    needed: tuple[str, ...] = ()
    """Languages without which a sample is of no use."""

    def __call__(self, sample: TarSample, record: PartRecord) -> str | None:
        """Why a sample is left out; takes captions out of its json, and counts them in the record."""
        captions = sample.document.get("captions")
        if not isinstance(captions, dict):
            return "no captions"
        kept = dict[str, str]()
        for language, text in captions.items():
            if not isinstance(text, str) or not text.strip():
                continue
            if found := self._problem(language, text):
                record.changes[found] += 1
            else:
                kept[language] = text
        if len(kept) < len(captions):
            sample.document["captions"] = kept
        missing = [language for language in self.needed if language not in kept]
        return f"no caption in {missing[0]}" if missing else None if kept else "no captions left"

    def _problem(self, language: str, text: str) -> str | None:
        if self.min_characters is not None and len(text) < self.min_characters:
            return f"captions below {count_of(self.min_characters, 'character')}"
        if self.max_characters is not None and len(text) > self.max_characters:
            return f"captions above {count_of(self.max_characters, 'character')}"
        if self.confidence is not None and not _is_in(language, text, self.confidence):
            return "captions that are not in their language"
        return None


def _is_in(language: str, text: str, confidence: float) -> bool:
    code = re.split(r"[-_]", language.lower())[0]
    if code not in known_languages():
        return True
    found, share = language_of(text)
    return found == code and share >= confidence


def prompt_rule(prompts: Iterable[str]) -> Rule:
    """Samples whose caption is a prompt of the evaluation, or, of longer prompts, has one in it."""
    plain = {_plain(prompt) for prompt in prompts} - {""}
    long = [prompt for prompt in sorted(plain) if len(prompt) >= _SHORTEST_PROMPT]

    def rule(sample: TarSample, _record: PartRecord) -> str | None:
        captions = sample.document.get("captions")
        texts = [text for text in captions.values() if isinstance(text, str)] if isinstance(captions, dict) else []
        for text in map(_plain, texts):
            if text in plain or any(prompt in text for prompt in long):
                return "a prompt of the evaluation"
        return None

    return rule


def _plain(text: str) -> str:
    """Letters and digits alone, in one form."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", folded).split())
