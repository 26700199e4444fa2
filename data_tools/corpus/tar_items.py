"""The samples of a tar that somebody else wrote (img2dataset, webdataset, pack itself), with their stored bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from data_tools.corpus.column_names import ColumnMapping
from data_tools.corpus.item import Item, Problem
from data_tools.corpus.item_captions import take_captions
from data_tools.corpus.other_columns import other_columns
from pea.corpus.archive import Member
from pea.corpus.captions import read_json
from pea.corpus.grouping import Content, Group, Unread, key_groups, key_problem, shown_key
from pea.corpus.places import Tar
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import EXTENSIONS, JSON, MAX_JSON_BYTES, extensions_of
from pea.corpus.tables import Row
from pea.corpus.tars import OpenTar, open_tar

MAX_IMAGE_BYTES = 1 << 30
IMAGE_EXTENSIONS = (*extensions_of(tuple(EXTENSIONS)), "heic", "heif", "jxl")
TEXT_FIELD = "txt"
"""Under this name the text of ``key.txt`` appears, where a tar has no jsons."""
_LOOKED_AT = 1000  # members


@dataclass
class TarSample:
    """A key of a tar with its image and its json, or why there is none."""

    key: str
    extension: str = ""
    image: bytes = b""
    document: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None
    stored: dict[str, bytes] = field(default_factory=dict)
    """Extension -> bytes, of the image and the json, as they lie in the tar."""


def tar_samples(tar: Tar) -> Iterator[TarSample]:
    """Every key of a tar, in one pass.

    Raises:
        CorpusError: the tar is damaged, or not what is said beside it; follows the samples before the damage.
    """
    only_texts = _has_only_texts(tar)
    with open_tar(tar) as opened:
        members: Any = (_TextMember(each) for each in opened.members) if only_texts else opened.members
        for group in key_groups(members, IMAGE_EXTENSIONS, _content):
            yield _sample(opened, group)
        opened.finish()


def tar_items(tar: Tar, mapping: ColumnMapping) -> Iterator[tuple[str, Item]]:
    """(Key, item) of every key of a tar.

    Raises:
        CorpusError: as ``tar_samples``.
    """
    for sample in tar_samples(tar):
        item = Item(f"{tar.name}/{sample.key}", len(sample.image), lambda data=sample.image: data)  # type: ignore[misc]
        item.problem = sample.problem
        row = Row(str(tar), 0, sample.document)
        take_captions(item, row.get, mapping)
        item.columns = other_columns(sample.document, mapping, item.notes)
        item.columns.pop("captions", None)
        yield sample.key, item


def first_rows(tar: Tar, count: int) -> list[Row]:
    """The jsons of the first samples, as rows of a table.

    Raises:
        CorpusError: as ``tar_samples``.
    """
    good = (sample.document for sample in tar_samples(tar) if not sample.problem)
    return [Row(str(tar), number, document) for number, document in enumerate(islice(good, count), 1)]


def _sample(opened: OpenTar, group: Group) -> TarSample:
    key = shown_key(group.key)
    if repeated := opened.seen.note(group) or key_problem(group.key):
        return TarSample(key, problem=Problem("key_unusable", f"{repeated}: {group.extensions}"))
    for content in group.files.values():
        if isinstance(content, Unread) and content.reason:
            return TarSample(key, problem=Problem(content.reason, content.detail))
    images = [name for name in group.files if name != JSON]
    if len(images) != 1:
        problem = "image_ambiguous" if images else "image_missing"
        return TarSample(key, problem=Problem(problem, group.extensions))
    if JSON not in group.files:
        return TarSample(key, problem=Problem("caption_missing", f"neither json nor txt: {group.extensions}"))
    files = {name: each for name, each in group.files.items() if isinstance(each, bytes)}
    try:
        document = read_json(files[JSON])
    except BadSampleError as bad:
        return TarSample(key, problem=Problem("json_unreadable", bad.detail))
    return TarSample(key, images[0], files[images[0]], document, stored=files)


def _content(member: Any, _key: str) -> Content:
    if member.kind != "file":
        return Unread("file_not_stored", f"{member.name!a}: {member.kind}"[:200])
    limit = MAX_JSON_BYTES if member.name.lower().endswith(f".{JSON}") else MAX_IMAGE_BYTES
    return Unread("file_too_large", f"{member.size_bytes} bytes") if member.size_bytes > limit else member.read()


def _has_only_texts(tar: Tar) -> bool:
    with open_tar(tar) as opened:
        endings = {member.name.rpartition(".")[2].lower() for member in islice(opened.members, _LOOKED_AT)}
    return JSON not in endings and "txt" in endings


class _TextMember:
    """A member, whose text stands for a json."""

    def __init__(self, member: Member) -> None:
        self._member, self.kind, self.size_bytes = member, member.kind, member.size_bytes
        self._is_text = member.name.lower().endswith(".txt")
        self.name = f"{member.name[:-4]}.{JSON}" if self._is_text else member.name

    def read(self) -> bytes:
        data = self._member.read()
        if not self._is_text:
            return data
        text = data.decode("utf-8-sig", "surrogateescape")
        return json.dumps({TEXT_FIELD: text}).encode()
