"""Cleaning: each rule, all rules together, and that what is clean stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_tools.corpus.clean import RULES, Cleaner, is_chinese

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
PIECES = st.lists(
    st.sampled_from(
        [
            "&",
            "＆",
            "amp;",
            "lt;",
            "&#",
            "65286;",
            "#38;",
            "http://",
            "www.",
            "x/y",
            "ttp",
            "h",
            " ",
            "\u3000",
            "\u200d",
            "\x07",
        ]
    )
    | st.characters(codec=None, exclude_categories=()),
    max_size=24,
).map("".join)
CASES = {
    "a &amp;amp;lt;b&gt; &#233;": ("a <b> é", {"entities"}),
    "雪\x00地\x1b[2J": ("雪 地 [2J", {"controls"}),
    "\ufeffa\u202eb\u200e": ("ab", {"controls"}),
    "ＡＢＣ①ﬁ，": ("ABC1fi,", {"nfkc"}),
    "看http://a.example/x?y=1，好": ("看 ,好", {"urls", "nfkc"}),
    "see www.example.org. now": ("see . now", {"urls", "spaces"}),
    " a\u3000\n b\t": ("a b", {"controls", "nfkc", "spaces"}),
    "&amp;#x200b;": ("", {"entities", "spaces"}),
    "👩‍👩‍👧 می‌خواهم": ("👩‍👩‍👧 می‌خواهم", set()),
    "\u200d": ("", {"controls"}),
    "&＃38;lt;": ("<", {"entities", "nfkc"}),
    "a\ud800\ue000\U0001ffffb": ("ab", {"controls"}),
}


@pytest.mark.parametrize("text", CASES, ids=ascii)
def test_each_rule(text: str) -> None:
    cleaned, used = Cleaner().clean(text)
    assert (cleaned, used) == CASES[text]


@given(ANY_TEXT | PIECES)
@example("&amp;" * 30 + "#" + "amp;" * 30)
@example("hhttp://attp://a")
@example("\u200d \u200d")
def test_what_is_clean_stays(text: str) -> None:
    cleaner = Cleaner()
    cleaned, used = cleaner.clean(text)
    assert cleaner.clean(cleaned) == (cleaned, set())
    assert (cleaned != text) <= bool(used), "every change has a rule's name"
    assert cleaned == unicodedata.normalize("NFKC", cleaned) == cleaned.strip()
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in cleaned)
    cleaned.encode()


def test_rules_can_be_left_out() -> None:
    text = "，&lt; http://a.example"
    for rule, said in (("nfkc", "，<"), ("entities", ",&lt;"), ("urls", ",< http://a.example")):
        assert Cleaner([each for each in RULES if each != rule]).clean(text)[0] == said


@pytest.mark.slow
def test_chinese_in_one_form() -> None:
    pytest.importorskip("opencc")
    simplified, traditional = Cleaner(chinese="simplified"), Cleaner(chinese="traditional")
    assert simplified.clean("雪地裡的貓", "zh-Hant") == ("雪地里的猫", {"chinese"})
    assert simplified.clean("雪地裡的貓", "ja") == ("雪地裡的貓", set()), "another language's characters are its own"
    assert traditional.clean("雪地里的猫和皇后", "zh") == ("雪地裏的貓和皇后", {"chinese"})
    everything = [chr(code) for first, end in ((0x3400, 0x4DC0), (0x4E00, 0xA000)) for code in range(first, end)]
    for cleaner in (simplified, traditional):
        for text in everything:
            once = cleaner.clean(text, "zh")[0]
            assert cleaner.clean(once, "zh") == (once, set()), ascii(text)


def test_codes_of_chinese() -> None:
    assert all(map(is_chinese, ("zh", "zh-TW", "zh_Hans", "yue", "cmn", "ZH")))
    assert not any(map(is_chinese, ("", "ja", "za", "en-zh")))
