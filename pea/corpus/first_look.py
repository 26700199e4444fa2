"""A look at the first samples of a corpus, before anything is spent on it, to see whether most of them get through.

Where captions are missing, what the json of the samples has is compared with the fields that are looked up, and a
mapping that would fit is proposed: from names of fields (``caption_zh``, ``text``, ...), and else from the script of
their texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pea.corpus.caption_fields import texts_within
from pea.corpus.caption_tables import CaptionsBeside, CaptionTables
from pea.corpus.captions import read_json
from pea.corpus.grouping import Content, Unread, key_groups
from pea.corpus.places import Tar
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import JSON, MAX_JSON_BYTES, ReadingRules, TextSource
from pea.corpus.samples import Rejected, read_tar
from pea.corpus.tables import open_table
from pea.corpus.tars import open_tar
from pea.corpus.text_columns import open_texts
from pea.corpus.texts import first_parts, read_text_part
from pea.errors import CorpusError

MOST_SAMPLES = 100
_MOST_TARS = 8


@dataclass
class FirstLook:
    """What the first samples of a corpus are like."""

    num_kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Reason -> samples that would be left out."""
    examples: dict[str, str] = field(default_factory=dict)
    """Reason -> what was found where it was met first."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Dotted field of the json that holds text -> some of the texts."""
    languages: Counter[str] = field(default_factory=Counter)
    """Language -> samples with a caption in it."""
    beside: Counter[str] = field(default_factory=Counter)
    """What became of captions from tables beside the tars; see ``CaptionsBeside.counts``."""

    def leave_out(self, sample: Rejected) -> None:
        """Count a sample that would be left out."""
        self.reasons[sample.reason] += 1
        self.examples.setdefault(sample.reason, sample.detail)

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
    """Look at about a hundred rows: the first ones of the first files.

    Raises:
        CorpusError: a table cannot be read, or lacks a column.
    """
    found = FirstLook()
    files = open_texts(source)[0].files[:_MOST_TARS]
    most = -(-MOST_SAMPLES // len(files))
    for part in first_parts(replace(source, rows_per_part=most), _MOST_TARS):
        for text in read_text_part(part):
            if isinstance(text, Rejected):
                found.leave_out(text)
            else:
                found.num_kept += 1
                found.languages.update(list(text.captions))
        for row in islice(open_table([str(part.location)]).rows(on_bad=lambda _: None), most):
            for name, value in texts_within(row.values):
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
            found.leave_out(sample)
        else:
            found.num_kept += 1
            found.languages.update(list(sample.captions))
    for document in islice(_documents(tar, rules), most):
        for name, text in texts_within(document):
            found.texts.setdefault(name, []).append(text)


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
