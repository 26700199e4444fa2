"""The prompt sets of the package: complete, each in its own script, and read by `read_prompts`."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_tools.prompt_sets import FOLDER, PROMPT_SETS, prompt_set
from pea.errors import EvaluationError
from pea.evaluation.prompts import read_prompts, texts_in

LANGUAGES = ("zh", "ja", "ko", "ru", "it")
CULTURES = tuple(f"culture-{language}" for language in LANGUAGES)
LATIN, CYRILLIC, HANGUL, KANA, HAN = "A-Za-zÀ-ɏ", "Ѐ-ӿ", "가-힣", "぀-ヿ", "一-鿿"
SCRIPTS = {"zh": HAN, "ja": KANA + HAN, "ko": HANGUL, "ru": CYRILLIC, "it": LATIN, "en": LATIN}
"""Language -> the letters that it is written in."""


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in prompt_set(name).read_text("utf-8").splitlines()]


def letters(text: str) -> str:
    return re.sub(r"[\W\d_]", "", text)


def test_the_sets_are_those_of_the_data_card() -> None:
    assert PROMPT_SETS == tuple(sorted(("general", *CULTURES)))


def test_an_unknown_set_is_an_error_that_names_the_sets() -> None:
    with pytest.raises(EvaluationError, match=r"no such prompt set; expected one of culture-it, .*, general; got mg"):
        prompt_set("mg")


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_a_set_is_whole_and_has_no_repetitions(name: str) -> None:
    found = rows(name)
    assert len(found) == (200 if name == "general" else 100)
    assert all(row["id"].startswith(f"{name}-") and row["category"] for row in found)
    prompts = read_prompts(prompt_set(name))
    for language in prompts[0].captions:
        texts = [text.casefold() for text in texts_in(prompts, language, name)]
        repeated = [text for text, count in Counter(texts).items() if count > 1]
        assert not repeated, language
    assert all(not prompt.attributes for prompt in prompts)


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_every_caption_is_in_its_language(name: str) -> None:
    of_culture = name.removeprefix("culture-")
    expected = {"en", of_culture, f"translation_{of_culture}"} if name in CULTURES else {"en", *LANGUAGES}
    for prompt in read_prompts(prompt_set(name)):
        assert set(prompt.captions) == expected, prompt.id
        assert len(set(prompt.captions.values())) == len(expected), prompt.id
        for language, text in prompt.captions.items():
            script = SCRIPTS.get(language, LATIN)
            assert re.fullmatch(f"[{script}ー]+", letters(text)), (prompt.id, language, text)
            assert text == text.strip(), (prompt.id, language)


def test_japanese_is_not_chinese() -> None:
    captions = [prompt.captions["ja"] for prompt in read_prompts(prompt_set("general"))]
    assert all(re.search(f"[{KANA}]", text) for text in captions)


def test_general_prompts_vary_in_length() -> None:
    lengths = [len(prompt.captions["en"].split()) for prompt in read_prompts(prompt_set("general"))]
    assert min(lengths) == 4 and max(lengths) == 35 and len(set(lengths)) > 20


@pytest.mark.parametrize("name", CULTURES)
def test_a_culture_prompt_says_what_a_literal_translation_gets_wrong(name: str) -> None:
    for row in rows(name):
        assert row["concept"] and row["gloss"] == row["captions"]["en"], row["id"]
        assert len(row["literal_error"].split()) >= 4, row["id"]
    assert len({row["concept"] for row in rows(name)}) == 100


def test_the_data_card_counts_what_is_there() -> None:
    card = Path(FOLDER / "README.md").read_text("utf-8")
    counted = {name: Counter(row["category"] for row in rows(name)) for name in PROMPT_SETS}
    for category, count in counted["general"].items():
        assert f"| {category} | {count} |" in card
    for category in counted["culture-zh"]:
        counts = " | ".join(str(counted[name][category]) for name in CULTURES)
        assert f"| {category} | {counts} |" in card
