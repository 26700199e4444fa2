"""Captions of a scene in every language, and their word-for-word English translations."""

from __future__ import annotations

from data_tools.world.languages import ENGLISH, LANGUAGES, NATIVE_LANGUAGES, Language
from data_tools.world.scenes import Scene


def caption(scene: Scene, language: str) -> str:
    """The scene in one of the phrasings of `language`, chosen by the scene's seed.

    Raises `KeyError` for a culture concept that belongs to another language: it has no native name there.
    """
    words = LANGUAGES[language]
    template, _ = _phrasing(scene, words)
    return template.format(**_slots(scene, words))


def translation(scene: Scene, language: str) -> str:
    """Word-for-word English of `caption(scene, language)`: each word by the dictionary, in the native order."""
    words = LANGUAGES[language]
    _, gloss = _phrasing(scene, words)
    slots = (
        _slots(scene, ENGLISH)
        if not scene.is_culture
        else {
            "concept": words.concepts[scene.shape][1],
            "background": ENGLISH.backgrounds[scene.background],
        }
    )
    return gloss.format(**slots)


def captions(scene: Scene) -> dict[str, str]:
    """Every caption the scene has: all languages for a general scene, English and the owner's for a culture scene."""
    languages = [code for code, words in LANGUAGES.items() if not scene.is_culture or scene.shape in words.concepts]
    return {code: caption(scene, code) for code in languages}


def translations(scene: Scene) -> dict[str, str]:
    """`translation` for every native language in which the scene can be said, keyed `translation_<language>`."""
    languages = [c for c in NATIVE_LANGUAGES if not scene.is_culture or scene.shape in LANGUAGES[c].concepts]
    return {f"translation_{code}": translation(scene, code) for code in languages}


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
        "size": words.sizes[scene.size][form],
        "position": words.positions[scene.position],
        "background": background,
        "article": words.articles[scene.shape] if words.articles else "",
    }
