"""Codes and names of languages: what a column means, and what is said of odd codes."""

from __future__ import annotations

import pytest

from pea.corpus.languages import language_named, remarks_on


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("caption_en", "en"),
        ("alt_en", "en"),
        ("text.zh", "zh"),
        ("zh_CN", "zh"),
        ("es-AR", "es"),
        ("eng_Latn", "en"),
        ("zho_Hans", "zh"),
        ("Chinese caption", "zh"),
        ("日本語", "ja"),
        ("Deutsch", "de"),
        ("caption", None),
        ("sha256", None),
        ("original_height", None),
    ],
)
def test_a_name_that_names_a_language(name: str, language: str | None) -> None:
    assert language_named(name) == language


def test_odd_codes_are_said() -> None:
    assert remarks_on(["zh", "en", "pt-BR", "described_en"]) == []
    said = remarks_on(["jp", "Chinese", "und", "zh", "zh-cn", "zho_Hans"])
    assert [line.split(" is ")[0] for line in said[:3]] == ["Chinese", "jp", "und"]
    assert "; zh, if that is meant" in said[0] and "; ja, if that is meant" in said[1]
    assert said[3].startswith("zh, zh-cn, zho_Hans are languages apart; student.language")
