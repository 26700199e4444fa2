"""Captions made clean, rule by rule; what is clean stays as it is.

The rules are applied one after the other, and all of them again until nothing changes: what one uncovers
(``&amp;lt;``, a full-width ``＆``) is another's business.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Literal

from pea.errors import ConfigError

Chinese = Literal["simplified", "traditional"]
_URL = re.compile(r"(?:https?://|ftp://|\bwww\.)[!-~]*[A-Za-z0-9/_=#&%-]", re.ASCII | re.IGNORECASE)
_SPACES = re.compile(r"[\s\u200b]+")
_JOINERS = "\u200c\u200d"
_DROPPED_FORMATS = frozenset("\u00ad\u180e\u200e\u200f\u061c\u2028\u2029\ufeff\ufffc\ufffd") | {
    chr(code) for first, end in ((0x202A, 0x202F), (0x2060, 0x2070), (0xFFF9, 0xFFFC)) for code in range(first, end)
}
"""Characters without a shape: marks of direction and of breaks, anchors, stand-ins for what could not be read."""
RULES = ("entities", "controls", "nfkc", "urls", "spaces")
"""In the order in which they are applied."""
CHINESE = "chinese"
_MOST_ROUNDS = 100


def unescape_entities(text: str) -> str:
    """``&amp;amp;`` and ``&#233;`` become what they stand for, however often they were escaped."""
    while "&" in text and (shorter := html.unescape(text)) != text:
        text = shorter
    return text


def drop_controls(text: str) -> str:
    """Without characters that nobody sees: a space in place of a control character, nothing in place of a mark.

    Zero-width joiners stay between characters, where scripts and emoji need them.
    """
    kept = "".join(map(_without_control, text)) if not text.isprintable() or set(text) & _DROPPED_FORMATS else text
    return kept.strip(_JOINERS)


@cache
def _without_control(char: str) -> str:
    if char in _DROPPED_FORMATS:
        return ""
    category = unicodedata.category(char)
    if category == "Cc":
        return " "
    return "" if category in ("Cs", "Co") or (category == "Cn" and ord(char) & 0xFFFE == 0xFFFE) else char


def drop_urls(text: str) -> str:
    """Without addresses of the web; a space stands in place of each."""
    return _URL.sub(" ", text)


def join_spaces(text: str) -> str:
    """One space wherever there is any white space, and none at the ends."""
    return _SPACES.sub(" ", text).strip()


_APPLY: Mapping[str, Callable[[str], str]] = {
    "entities": unescape_entities,
    "controls": drop_controls,
    "nfkc": partial(unicodedata.normalize, "NFKC"),
    "urls": drop_urls,
    "spaces": join_spaces,
}
assert tuple(_APPLY) == RULES


class Cleaner:
    """The rules that were asked for."""

    def __init__(self, rules: Sequence[str] = RULES, chinese: Chinese | None = None) -> None:
        """``chinese``: the form that captions in Chinese are brought to.

        Raises:
            ConfigError: that needs a package that is not installed.
        """
        self.rules = {name: _APPLY[name] for name in RULES if name in rules}
        self._convert = None if chinese is None else converter(chinese)

    def clean(self, text: str, language: str = "") -> tuple[str, set[str]]:
        """The clean text, and the names of the rules that changed something."""
        rules, used = dict(self.rules), set[str]()
        if self._convert is not None and is_chinese(language):
            rules[CHINESE] = self._convert
        for _ in range(_MOST_ROUNDS):
            before = text
            for name, apply in rules.items():
                changed = apply(text)
                if changed != text:
                    used.add(name)
                    text = changed
            if text == before:
                return text, used
        raise AssertionError(f"the rules never agree on {text!a}")


def is_chinese(language: str) -> bool:
    """Whether a language's code is one of written Chinese."""
    return re.split(r"[-_]", language.lower())[0] in ("zh", "zho", "chi", "cmn", "yue")


def converter(form: Chinese) -> Callable[[str], str]:
    """What turns Chinese of either form into one of them, and leaves that as it is.

    Raises:
        ConfigError: OpenCC is not installed.
    """
    try:
        from opencc import OpenCC
    except ImportError:
        raise ConfigError(
            "simplified and traditional Chinese need the package opencc",
            where="--chinese",
            remedy="Install it with `pip install 'pea-cache[data]'`.",
        ) from None
    return partial(_until_settled, OpenCC("t2s" if form == "simplified" else "s2t").convert)


def _until_settled(convert: Callable[[str], str], text: str) -> str:
    """A text that the conversion leaves alone; of several that it goes round on, always the same one."""
    seen: list[str] = []
    while text not in seen:
        seen.append(text)
        text = convert(text)
    return min(seen[seen.index(text) :])
