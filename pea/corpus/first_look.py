"""A look at the first samples of a corpus, before anything is spent on it, to see whether most of them get through.

Where captions are missing, what the json of the samples has is compared with the fields that are looked up, and a
mapping that would fit is proposed: from names of fields (``caption_zh``, ``text``, ...), and else from the script of
their texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pea.corpus.caption_tables import CaptionsBeside, CaptionTables
from pea.corpus.captions import read_json
from pea.corpus.grouping import Content, Unread, key_groups
from pea.corpus.languages import LANGUAGES
from pea.corpus.places import Tar
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import JSON, MAX_JSON_BYTES, ReadingRules, TextSource
from pea.corpus.samples import Rejected, read_tar
from pea.corpus.tables import open_table
from pea.corpus.tars import open_tar
from pea.corpus.texts import read_text_part, text_parts
from pea.errors import CorpusError

MOST_SAMPLES = 100
_MOST_TARS = 8
_MOST_DEPTH = 4
_GENERAL = ("caption", "captions", "text", "txt", "prompt", "description", "alt", "title")
"""Names of a caption that name no language."""
_CODE = re.compile(r"(?:^|[._-])([a-z]{2,3})(?:[_-][A-Za-z]{2,4})?$")
_SCRIPTS = (
    ("HIRAGANA", "ja"), ("KATAKANA", "ja"), ("HANGUL", "ko"), ("CJK", "zh"), ("CYRILLIC", "ru"), ("ARABIC", "ar"),
    ("DEVANAGARI", "hi"), ("THAI", "th"), ("HEBREW", "he"), ("GREEK", "el"),
)  # fmt: skip


@dataclass
class FirstLook:
    """What the first samples of a corpus are like."""

    num_kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Reason -> samples that would be left out."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Dotted field of the json that holds text -> some of the texts."""
    languages: Counter[str] = field(default_factory=Counter)
    """Language -> samples with a caption in it."""
    beside: Counter[str] = field(default_factory=Counter)
    """What became of captions from tables beside the tars; see ``CaptionsBeside.counts``."""

    @property
    def num_dropped(self) -> int:
        """Samples that would be left out."""
        return sum(self.reasons.values())

    @property
    def dropped_share(self) -> float:
        """Share of the samples that would be left out."""
        return self.num_dropped / max(1, self.num_dropped + self.num_kept)


def first_look(
    tars: Sequence[Tar],
    captions: Mapping[str, str],
    required: Sequence[str],
    rules: ReadingRules,
    tables: CaptionTables | None = None,
) -> FirstLook:
    """Look at about the first hundred samples: of the first tar of each folder, and then of the next ones.

    What is behind a tar's damage is not looked at: who reads whole tars names all that are damaged. ``tables``: where
    required captions are looked up before the jsons.

    Raises:
        ConfigError: a decoder is missing.
        CorpusError: a caption table cannot be read.
    """
    found, chosen = FirstLook(), list(islice(_by_folder(tars), _MOST_TARS))
    for number, tar in enumerate(chosen):
        left = MOST_SAMPLES - found.num_kept - found.num_dropped
        most = -(-left // (len(chosen) - number))
        beside = tables.beside(tar.name, required[0]) if tables and required else None
        with suppress(CorpusError):
            _look(tar, most, found, captions, required, rules, beside)
        found.beside.update(beside.counts if beside else {})
    return found


def first_look_at_texts(source: TextSource) -> FirstLook:
    """Look at the first hundred rows of a table.

    Raises:
        CorpusError: it cannot be read, or lacks a column.
    """
    found = FirstLook()
    rows = replace(source, rows_per_part=MOST_SAMPLES)
    for part, _ in islice(text_parts(rows), 1):
        for text in read_text_part(part):
            if isinstance(text, Rejected):
                found.reasons[text.reason] += 1
            else:
                found.num_kept += 1
                found.languages.update(list(text.captions))
        table = open_table([str(part.location)])
        for row in islice(table.rows(on_bad=lambda _: None), MOST_SAMPLES):
            for name, value in _texts(row.values):
                found.texts.setdefault(name, []).append(value)
    return found


def _look(
    tar: Tar,
    most: int,
    found: FirstLook,
    captions: Mapping[str, str],
    required: Sequence[str],
    rules: ReadingRules,
    beside: CaptionsBeside | None,
) -> None:
    for sample in islice(read_tar(tar, captions, required=required, rules=rules, beside=beside), most):
        if isinstance(sample, Rejected):
            found.reasons[sample.reason] += 1
        else:
            found.num_kept += 1
            found.languages.update(list(sample.captions))
    for document in islice(_documents(tar, rules), most):
        for name, text in _texts(document):
            found.texts.setdefault(name, []).append(text)


def proposed_mapping(texts: Mapping[str, Sequence[str]], languages: Sequence[str]) -> dict[str, str]:
    """Language -> field of the json, as far as names and scripts tell.

    ``texts``: field -> some of its texts; ``languages``: what is wanted, first the one in which the texts are of a
    field that names none.
    """
    found: dict[str, str] = {}
    general = []
    for name in sorted(texts, key=lambda name: (-len(texts[name]), len(name), name)):
        code = _CODE.search(name.lower())
        if code and code[1] in LANGUAGES and (code[1] != "id" or "id" in languages):  # else a field of ids
            found.setdefault(code[1], name)
        elif name.rpartition(".")[2].lower() in _GENERAL:
            general.append(name)
    unnamed = "en" if languages[0] in dict(_SCRIPTS).values() else languages[0]
    for name in general:
        found.setdefault(_language_of(texts[name]) or unnamed, name)
    return {language: found[language] for language in sorted(found, key=lambda each: (each not in languages, each))}


def _by_folder(tars: Sequence[Tar]) -> Iterator[Tar]:
    """The first tar of each folder, then all others."""
    firsts: dict[str, Tar] = {}
    for tar in tars:
        firsts.setdefault(str(tar.location.parent), tar)
    yield from firsts.values()
    yield from (tar for tar in tars if tar not in firsts.values())


def _documents(tar: Tar, rules: ReadingRules) -> Iterator[dict[str, Any]]:
    def content(member: Any, _key: str) -> Content:
        wanted = member.name.lower().endswith(f".{JSON}") and member.kind == "file"
        return member.read() if wanted and member.size_bytes <= MAX_JSON_BYTES else Unread("")

    with open_tar(tar) as opened:
        for group in key_groups(opened.members, rules.image_extensions, content):
            data = group.files.get(JSON)
            try:
                if isinstance(data, bytes):
                    yield read_json(data)
            except BadSampleError:
                continue


def _texts(document: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    """Dotted field -> text, of every text in a json that is not empty."""
    for name, value in document.items():
        if isinstance(value, str) and value.strip():
            yield prefix + name, value
        elif isinstance(value, dict) and depth < _MOST_DEPTH:
            yield from _texts(value, f"{prefix}{name}.", depth + 1)


def _language_of(texts: Iterable[str]) -> str | None:
    """The language whose script most letters of some texts are in, where that tells one."""
    counts: Counter[str | None] = Counter()
    for text in islice(texts, 20):
        for letter in filter(str.isalpha, text[:200]):
            name = unicodedata.name(letter, "")
            counts[next((language for script, language in _SCRIPTS if name.startswith(script)), None)] += 1
    if counts["ja"] and counts["ja"] + counts["zh"] > counts[None]:
        return "ja"
    return counts.most_common(1)[0][0] if counts else None
