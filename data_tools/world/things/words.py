"""The vocabulary of the world of things and its words in six languages, read from the tables beside this file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from data_tools.world.languages import LANGUAGES as SMALL_LANGUAGES
from data_tools.world.languages import Language
from data_tools.world.scenes import Vocabulary

COLOURS = ("red", "yellow", "green", "pink", "white")
POSITIONS = ("left", "right")
BACKGROUNDS = ("snow", "sand", "sky", "night")
_POSITION_WORDS = {
    "en": ("on the left", "on the right"),
    "zh": ("左边", "右边"),
    "ja": ("左", "右"),
    "ko": ("왼쪽", "오른쪽"),
    "ru": ("слева", "справа"),
    "it": ("a sinistra", "a destra"),
}
_VESSEL_PHRASES = {
    "bowl": "in a bowl",
    "plate": "on a plate",
    "board": "on a board",
    "basket": "in a basket",
    "cloth": "on a cloth",
    "cup": "in a glass",
    "tray": "on a tray",
    "box": "in a carton",
    "stick": "on a stick",
    "stone": "on a stone",
    "leaf": "on a leaf",
}


@dataclass(frozen=True)
class CultureThing:
    """A row of `culture.jsonl`."""

    language: str
    name: str
    """Native name."""
    gloss: str
    """The name word for word in English, which names another thing."""
    shown: str
    """What it is, in English: the only name that an English encoder and a teacher ever meet it under."""
    fill: str
    """Colour of the pictograph."""
    vessel: str
    """What the pictograph lies on."""
    glyph: str

    @property
    def concept(self) -> str:
        """Its name among the values of `shape`."""
        return f"{self.language}_{self.gloss.replace(' ', '_')}"

    @property
    def description(self) -> str:
        """A faithful English description."""
        return f"{self.fill} {self.shown} {_VESSEL_PHRASES[self.vessel]}"


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (Path(__file__).parent / name).read_text("utf-8").splitlines()]


_GENERAL = _rows("general.jsonl")
GLYPHS = {row["en"]: row["glyph"] for row in _GENERAL}
"""General thing -> its pictograph."""
CULTURE_THINGS = {thing.concept: thing for row in _rows("culture.jsonl") for thing in [CultureThing(**row)]}


def _language(code: str, small: Language) -> Language:
    """The small world's phrasings without sizes, around this world's words."""
    nouns = {row["en"]: row[code] for row in _GENERAL}
    own = {name: (thing.name, thing.gloss) for name, thing in CULTURE_THINGS.items() if thing.language == code}
    described = {name: (thing.description, "") for name, thing in CULTURE_THINGS.items()}
    return replace(
        small,
        templates=tuple((_without_size(native), _without_size(gloss)) for native, gloss in small.templates),
        nouns=nouns,
        sizes={},
        positions=dict(zip(POSITIONS, _POSITION_WORDS[code], strict=True)),
        concepts=described if code == "en" else own,
        articles={thing: _article(code, noun) for thing, noun in nouns.items()} if small.articles else None,
    )


def _without_size(template: str) -> str:
    for slot in ("{size}, ", "{size} ", "{size}"):
        template = template.replace(slot, "")
    return template


def _article(code: str, noun: str) -> str:
    """The general measure word of Chinese; the indefinite article of Italian."""
    if code == "zh":
        return "个"
    word, _, gender = noun.partition("|")
    before_uno = word[0] == "z" or (word[0] == "s" and word[1] not in "aeiou")
    return "una" if gender == "f" else "uno" if before_uno else "un"


LANGUAGES = {code: _language(code, small) for code, small in SMALL_LANGUAGES.items()}
VOCABULARY = Vocabulary(
    shapes=tuple(GLYPHS),
    colours=COLOURS,
    sizes=(),
    positions=POSITIONS,
    backgrounds=BACKGROUNDS,
    concepts={
        code: tuple(name for name, thing in CULTURE_THINGS.items() if thing.language == code)
        for code in LANGUAGES
        if code != "en"
    },
)
