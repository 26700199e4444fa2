"""Codes and names of languages, to tell a column that is named by one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_CODES = (
    "af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kk km kn ko"
    " ky lo lt lv mk ml mn mr ms my nb ne nl nn no pa pl ps pt ro ru si sk sl sq sr sv sw ta te tg th tl tr uk ur uz vi"
    " zh"
)
LANGUAGES = frozenset(_CODES.split())
"""Languages that captions are likely to be in (ISO 639-1). ``id`` is Indonesian, and more often a column of ids."""
LANGUAGE_NAMES = {
    "arabic": "ar",
    "chinese": "zh",
    "czech": "cs",
    "danish": "da",
    "dutch": "nl",
    "english": "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "greek": "el",
    "hebrew": "he",
    "hindi": "hi",
    "hungarian": "hu",
    "urdu": "ur",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "norwegian": "no",
    "persian": "fa",
    "polish": "pl",
    "portuguese": "pt",
    "romanian": "ro",
    "russian": "ru",
    "spanish": "es",
    "swedish": "sv",
    "thai": "th",
    "turkish": "tr",
    "ukrainian": "uk",
    "vietnamese": "vi",
    "bengali": "bn",
    "tamil": "ta",
    "deutsch": "de",
    "francais": "fr",
    "français": "fr",
    "espanol": "es",
    "español": "es",
    "italiano": "it",
}
"""Name of a language, in English or in itself -> its code."""
_OTHER_CODES = (
    "ara:ar cat:ca ces:cs cmn:zh cze:cs dan:da deu:de dut:nl ell:el eng:en fas:fa fin:fi fra:fr fre:fr ger:de heb:he"
    " hin:hi hun:hu ind:id ita:it jpn:ja kor:ko nld:nl nob:nb pol:pl por:pt ron:ro rus:ru spa:es swe:sv tam:ta tha:th"
    " tur:tr ukr:uk urd:ur vie:vi zho:zh"
)
_BY_LONG_CODE = dict(pair.split(":") for pair in _OTHER_CODES.split())  # ISO 639-2 and 639-3
_OWN_NAMES = {
    "中文": "zh", "汉语": "zh", "漢語": "zh", "英文": "en", "英语": "en", "英語": "en", "日文": "ja", "日语": "ja",
    "日本語": "ja", "中国語": "zh", "韓国語": "ko", "韩文": "ko", "韩语": "ko", "한국어": "ko", "한글": "ko",
    "영어": "en", "일본어": "ja", "중국어": "zh",
    "русский": "ru", "английский": "en", "العربية": "ar", "الإنجليزية": "en", "हिन्दी": "hi",
    "ไทย": "th", "українська": "uk",
}  # fmt: skip
_OF_COUNTRIES = {"cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "jp": "ja", "kr": "ko", "ua": "uk", "vn": "vi"}
"""Codes of countries, where that of the language was meant."""
_OF_NO_LANGUAGE = frozenset(("mis", "mul", "none", "null", "other", "und", "unknown", "xx", "zxx"))
_WORDS = re.compile(r"[\W_]+")


def named_in_itself(name: str) -> str | None:
    """``ja`` of ``日本語キャプション``: the only language that a name holds as its speakers write it; or None."""
    lowered = unicodedata.normalize("NFC", name).lower()
    found = {code for own, code in _OWN_NAMES.items() if own in lowered}
    return found.pop() if len(found) == 1 else None


def language_named(name: str) -> str | None:
    """``en`` of ``caption_en``, ``EN``, ``en-US``, ``eng_Latn``, ``English`` or ``英文``; None: it names none.

    Only to propose something to a person: ``id`` may be a column of ids.
    """
    words = [word for word in _WORDS.split(name.lower()) if word]
    codes = [word if word in LANGUAGES else _BY_LONG_CODE.get(word) for word in words[-2:]]
    by_name = (LANGUAGE_NAMES.get(word) or _OWN_NAMES.get(word) for word in words)
    return next((code for code in (*codes, *by_name) if code), None)


def remarks_on(codes: Iterable[str]) -> list[str]:
    """What a person should know of the codes that captions are filed under, which are read as they stand."""
    remarks, spellings = [], dict[str, list[str]]()
    for code in sorted(codes):
        first = _WORDS.split(code.lower())[0]
        meant = _OF_COUNTRIES.get(first) or LANGUAGE_NAMES.get(first) or _OWN_NAMES.get(first)
        if first in _OF_NO_LANGUAGE:
            remarks.append(f"{code} is no language: its captions are learnt under that name, or not at all")
        elif meant is not None:
            remarks.append(f"{code} is not the usual code of a language; {meant}, if that is meant, is another here")
        spellings.setdefault(_BY_LONG_CODE.get(first, first), []).append(code)
    alike = [", ".join(each) for each in spellings.values() if len(each) > 1]
    return remarks + [f"{each} are languages apart; student.language names the ones to learn" for each in alike]
