"""What a corpus says of its samples beside their captions: the json of each, and digests of the images' bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pea.corpus.archive import Member
from pea.corpus.captions import read_json
from pea.corpus.grouping import Content, Group, Unread, key_groups, shown_key
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import DEFAULT_FORMATS, JSON, MAX_JSON_BYTES, extensions_of
from pea.corpus.tars import Place, TarIdentity, first_dot_key, open_tar

DIGESTS = {"md5": 32, "sha256": 64, "sha512": 128}
"""Digests that img2dataset writes into each json, and their length in hexadecimal digits."""


@dataclass(frozen=True)
class Metadata:
    """What is said of one sample."""

    key: str
    """As it is recorded in a cache."""
    fields: Mapping[str, Any]
    """Its json, or its row of a table; empty where there is none that can be read."""
    digests: frozenset[str] = field(default_factory=frozenset)
    """Of the bytes of its images, in hexadecimal digits."""

    def get(self, name: str) -> Any:
        """A field by its name, or by its dotted path; None where it is absent."""
        if name in self.fields:
            return self.fields[name]
        found: Any = self.fields
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def read_metadata(
    place: Place, reading: Mapping[str, Any] | None, digests: Collection[str], expect: TarIdentity
) -> Iterator[Metadata]:
    """Every sample of a tar, usable or not, in the tar's order.

    ``reading``: the identity's field ``corpus.reading`` of the cache whose keys are meant. ``digests``: names out of
    ``DIGESTS``; none: the images are not read. ``expect``: what the tar must be.

    Raises:
        CorpusError: the tar is missing, damaged, or another. Follows the samples before the damage.
    """
    extensions = extensions_of(DEFAULT_FORMATS if reading is None else tuple(reading["image_formats"]))

    def content(member: Member, _key: str) -> Content:
        is_json = member.name.lower().endswith(f".{JSON}")
        if member.kind != "file" or (is_json and member.size_bytes > MAX_JSON_BYTES) or not (is_json or digests):
            return Unread("")
        return member.read() if is_json else _digests(member.read(), digests)

    with open_tar(place, digest=True) as tar:
        for group in key_groups(tar.members, extensions, content):
            tar.seen.note(group)
            key = shown_key(group.key)
            yield Metadata(key if reading is not None else first_dot_key(key), _json(group), _joined(group))
        tar.finish(expect)


def _digests(data: bytes, names: Collection[str]) -> bytes:
    return " ".join(hashlib.new(name, data, usedforsecurity=False).hexdigest() for name in sorted(names)).encode()


def _joined(group: Group) -> frozenset[str]:
    found = [each for name, each in group.files.items() if name != JSON and isinstance(each, bytes)]
    return frozenset(word for each in found for word in each.decode().split())


def _json(group: Group) -> Mapping[str, Any]:
    data = group.files.get(JSON)
    if not isinstance(data, bytes):
        return {}
    try:
        return read_json(data)
    except BadSampleError:
        return {}
