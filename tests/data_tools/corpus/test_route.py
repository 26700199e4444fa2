"""Routes and their reasons, each on the case that it is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.corpus.agreement import chrf
from data_tools.corpus.captioned import Captioned
from data_tools.corpus.languages import known_languages, language_of
from data_tools.corpus.route import ROUTES, Router, RoutingRules
from data_tools.corpus.scripts import base_language, main_script, scripts_of_language, scripts_of_text, share_in

ENGLISH, NATIVE = "two small green squares above a large circle", "一个大圆上面的两个绿色小方块"
FRENCH = "un petit carré vert au-dessus d'un grand cercle jaune dans la neige"
SURE = ("fr", 0.99)


def route(captions: dict[str, str], back: dict[str, str] | None = None, **options: object) -> tuple[str, list[str]]:
    """Route and codes of a sample, without an identifier."""
    provenance = options.pop("provenance", {})
    found = Router(RoutingRules(**options)).route(Captioned("a", "1", captions, provenance), back)  # type: ignore[arg-type]
    assert found.codes[-1] == found.route and len(found.codes) == len(found.reasons)
    return found.route, found.codes[:-1]


def test_by_what_is_there() -> None:
    both = {"en": ENGLISH, "zh": NATIVE}
    assert route(both) == ("parallel", [])
    assert route({"zh": NATIVE}) == ("culture", [])
    assert route({"en": ENGLISH}) == ("english_only", [])
    assert route({}) == ("none", [])
    assert route(both, languages=("ja",)) == ("english_only", []), "Chinese is not asked for"
    assert route({"zh": NATIVE, "described_en": ENGLISH}) == ("culture", []), "a description is no caption"


def test_by_script() -> None:
    assert route({"en": NATIVE, "zh": NATIVE}) == ("culture", ["en: other script"])
    assert route({"en": ENGLISH, "zh": ENGLISH}) == ("english_only", ["zh: other script"])
    assert route({"en": "2024", "xx": "anything"})[0] == "parallel", (
        "no letters, and an unknown language, prove nothing"
    )
    assert route({"en": ENGLISH, "zh": "iPhone 手机保护壳新款"})[0] == "parallel", "most of the letters count"


def test_by_who_made_it() -> None:
    both = {"en": ENGLISH, "zh": NATIVE}
    made = {"en": "translation: m"}
    assert route(both, provenance=made) == ("culture", ["en: a translation that nothing confirms"])
    assert route(both, provenance=made, trust_translations=True) == ("parallel", [])
    assert route(both, {"zh": NATIVE}, provenance=made) == ("parallel", [])
    assert route(both, provenance={"en": "description: blip"}) == ("culture", ["en: a description"])
    assert route(both, provenance={"zh": "translation: m"}) == ("parallel", []), (
        "a native translation is what is wanted"
    )


def test_by_a_translation_back() -> None:
    both, other = {"en": ENGLISH, "zh": NATIVE}, {"en": "someone plays the violin"}
    assert route(both, {"en": "two little green squares over a big circle"}) == ("parallel", [])
    assert route(both, other) == ("culture", ["en: no agreement"])
    assert route(both, other, provenance={"zh": "translation: m"}) == ("english_only", ["zh: no agreement"])
    assert route(both, other, min_agreement=0.0) == ("parallel", [])
    found = Router(RoutingRules()).route(Captioned("a", "1", both), {"en": ENGLISH, "ja": "猫"})
    assert found.agreement == 1.0, "what has no caption of its own is not compared"


def test_by_language() -> None:
    def look(
        captions: dict[str, str], told: tuple[str, float], known: tuple[str, ...] = ("en", "fr", "zh")
    ) -> list[str]:
        return Router(RoutingRules(), lambda _: told, known).route(Captioned("a", "1", captions)).codes[:-1]

    assert look({"en": FRENCH, "zh": NATIVE}, SURE) == ["en: other language", "zh: other language"]
    assert look({"en": FRENCH}, ("fr", 0.5)) == [], "not sure"
    assert look({"en": "short"}, SURE) == [] and look({"zh": "短短"}, SURE) == [], "too short to tell"
    assert look({"en": FRENCH}, SURE, ("fr",)) == [], "a language that the identifier does not know"
    assert look({"zh": NATIVE}, ("wuu", 0.99)) == [], "much alike"


@pytest.mark.slow
def test_with_the_real_identifier() -> None:
    if not known_languages():
        pytest.skip("py3langid is not installed")
    router = Router(RoutingRules(), language_of, tuple(known_languages()))
    routed = router.route(Captioned("a", "1", {"en": FRENCH, "zh": NATIVE}))
    assert routed.route == "culture" and routed.reasons[0].startswith("en: reads as fr (0.9")
    assert router.route(Captioned("a", "1", {"en": ENGLISH, "zh": NATIVE})).route == "parallel"


@given(st.dictionaries(st.sampled_from(["en", "zh", "fr", "described_en"]), st.text(min_size=1), max_size=4))
def test_every_sample_has_one_route_and_reasons(captions: dict[str, str]) -> None:
    found = Router(RoutingRules()).route(Captioned("a", "1", captions))
    assert found.route in ROUTES and found.reasons and found.captions.items() <= captions.items()


@given(st.text(max_size=30), st.text(max_size=30))
def test_agreement(one: str, other: str) -> None:
    assert chrf(one, one) == 1.0 and 0 <= chrf(one, other) <= 1
    assert chrf("", "a") == 0.0 == chrf("abc", "xyz") and chrf("A  b", "ab") == 1.0


def test_agreement_of_a_known_pair() -> None:
    # By hand: 1-grams 2 of 3 and 2 of 2, 2-grams 1 of 2 and 1 of 1; F2 = 5pr / (4p + r).
    assert chrf("abc", "ab") == pytest.approx((5 * (2 / 3) / (4 * 2 / 3 + 1) + 5 * 0.5 / (4 * 0.5 + 1)) / 2)


def test_scripts() -> None:
    assert scripts_of_text("猫 a Ж ﾈ Ａ 1!") == {"CJK": 1, "LATIN": 2, "CYRILLIC": 1, "KATAKANA": 1}
    assert scripts_of_language("zh-TW") == ("CJK",) and scripts_of_language("xx") is None
    assert share_in("猫a", ("CJK",)) == 0.5 and share_in("12", ("CJK",)) == 1.0
    assert (main_script("猫猫a"), main_script("Ж"), main_script("1")) == (
        "Chinese characters",
        "Cyrillic",
        "no letters",
    )
    assert [base_language(code) for code in ("zh-TW", "zh_Hans", "described_en", "EN")] == ["zh", "zh", "en", "en"]
