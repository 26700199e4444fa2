"""Captions of a scene in every language, and their word-for-word English translations."""

from __future__ import annotations

from collections.abc import Mapping

from data_tools.world.languages import LANGUAGES, Language
from data_tools.world.scenes import Scene


def caption(scene: Scene, language: str, languages: Mapping[str, Language] = LANGUAGES) -> str:
    """The scene in one of the phrasings of `language`, chosen by the scene's seed.

    Raises `KeyError` for a culture concept that belongs to another language: it has no native name there.
    """
    words = languages[language]
    template, _ = _phrasing(scene, words)
    return template.format(**_slots(scene, words))


def translation(scene: Scene, language: str, languages: Mapping[str, Language] = LANGUAGES) -> str:
    """Word-for-word English of `caption(scene, language)`: each word by the dictionary, in the native order."""
    words, english = languages[language], languages["en"]
    _, gloss = _phrasing(scene, words)
    slots = (
        _slots(scene, english)
        if not scene.is_culture
        else {
            "concept": words.concepts[scene.shape][1],
            "background": english.backgrounds[scene.background],
        }
    )
    return gloss.format(**slots)


def captions(scene: Scene, languages: Mapping[str, Language] = LANGUAGES) -> dict[str, str]:
    """Every caption the scene has: all languages for a general scene, English and the owner's for a culture scene."""
    codes = [code for code, words in languages.items() if not scene.is_culture or scene.shape in words.concepts]
    return {code: caption(scene, code, languages) for code in codes}


def translations(scene: Scene, languages: Mapping[str, Language] = LANGUAGES) -> dict[str, str]:
    """`translation` for every native language in which the scene can be said, keyed `translation_<language>`."""
    codes = [code for code in captions(scene, languages) if code != "en"]
    return {f"translation_{code}": translation(scene, code, languages) for code in codes}


def _phrasing(scene: Scene, words: Language) -> tuple[str, str]:
    templates = words.culture_templates if scene.is_culture else words.templates
    return templates[scene.seed % len(templates)]


def _slots(scene: Scene, words: Language) -> dict[str, str]:
    background = words.backgrounds[scene.background]
    if scene.is_culture:
        return {"concept": words.concepts[scene.shape][0], "background": background}
    noun, _, gender = words.nouns[scene.shape].partition("|")
    form = words.genders.index(gender) if gender else 0
    return {
        "noun": noun,
        "colour": words.colours[str(scene.colour)][form],
        "size": words.sizes[scene.size][form] if scene.size else "",
        "position": words.positions[scene.position],
        "background": background,
        "article": words.articles[scene.shape] if words.articles else "",
    }
