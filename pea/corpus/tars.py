"""Tar files as a whole: which ones there are, what makes two the same, whether one is intact, its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pea.corpus.archive import TarReader
from pea.corpus.byte_streams import RESTORE, StoredBytes, read_errors, unpacked
from pea.corpus.grouping import SeenKeys, Unread, key_groups
from pea.corpus.places import Place, Tar, expand_tars, location_of, sample_id, tar_name
from pea.corpus.rules import DEFAULT_FORMATS, extensions_of
from pea.corpus.sidecars import MAX_BYTES, Sidecar, read_sidecars
from pea.errors import AccessDeniedError, LocationMissingError, TarUnusableError
from pea.storage.location import Location

_FIRST_DOT = re.compile(r"^((?:.*/|)[^.]+)[.][^/]*$")
_SAMPLE_BYTES = 100_000  # to guess a number of samples from the size of a tar


@dataclass(frozen=True)
class TarIdentity:
    """What makes two tars the same."""

    name: str
    """What it is called; see ``pea.corpus.places``."""
    size_bytes: int
    """Size of the file."""
    sha256: str
    """Digest of the file."""
    captions: str | None = None
    """Digest of the captions that were read from a table beside it; None: none were."""

    @property
    def entry(self) -> dict[str, Any]:
        """As a manifest has it; what is not there goes unmentioned, so that older caches stay what they are."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class TarContents:
    """What a look at the headers of a whole tar finds."""

    keys: tuple[str, ...]
    """Every key once, in order of first appearance, as it is recorded."""
    num_samples: int
    """Keys with an image or a json."""
    identity: TarIdentity | None = None
    """What the tar is, where that was asked for."""


class OpenTar:
    """A tar that is being read, from its first byte to its last."""

    def __init__(self, tar: Tar, stored: StoredBytes, sidecars: Sequence[Sidecar]) -> None:
        self._tar, self._stored, self._sidecars = tar, stored, sidecars
        self.seen = SeenKeys(tar)

    @property
    def members(self) -> TarReader:
        """Its members, once."""
        return TarReader(unpacked(self._stored, self._tar), self._tar)

    def identity(self) -> TarIdentity:
        """What it is; reads what was not read. Needs ``digest``.

        Raises:
            CorpusError: it is not what is said beside it.
        """
        while self._stored.read(1 << 20):
            pass
        for sidecar in self._sidecars:
            sidecar.check_bytes(self._stored.num_read, self._stored.sha256)
        return TarIdentity(self._tar.name, self._stored.num_read, self._stored.sha256)

    def finish(self, expect: TarIdentity | None = None) -> None:
        """All members have been read: compare with what is known of the tar. ``expect`` needs ``digest``.

        Raises:
            CorpusError: other bytes, or another number of samples.
        """
        self.seen.finish()
        for sidecar in self._sidecars:
            sidecar.check_count(self.seen.num_samples)
        if expect is None:
            return
        found = self.identity()
        if (found.size_bytes, found.sha256) != (expect.size_bytes, expect.sha256):
            raise TarUnusableError(
                "the tar has changed since the cache was begun",
                where=self._tar,
                expected=f"sha256 {expect.sha256[:12]}…",
                got=f"{found.sha256[:12]}…",
                remedy=RESTORE,
            )


@contextmanager
def open_tar(place: Place, *, digest: bool = False) -> Iterator[OpenTar]:
    """Open a tar for one pass. ``digest``: read every byte, so that the tar can be compared with its identity.

    Raises:
        CorpusError: it is missing or unreadable, or changes while it is open.
    """
    location = location_of(place)
    sidecars = _sidecars(location)
    with read_errors(location):
        stream = location.open_stream()
    with stream:
        yield OpenTar(Tar(tar_name(place), location), StoredBytes(stream, location, digest=digest), sidecars)


def tar_identity(place: Place) -> TarIdentity:
    """Name, size and sha256 of a tar, which agree with what is said beside it.

    Raises:
        CorpusError: the file cannot be read, or is not what is said beside it.
    """
    with open_tar(place, digest=True) as tar:
        return tar.identity()


def scan_tar(
    place: Place, image_extensions: Sequence[str] = extensions_of(DEFAULT_FORMATS), *, digest: bool = False
) -> TarContents:
    """Look at every header of a tar, by the code that reads it, without reading images and jsons.

    ``digest``: find the tar's identity in the same pass.

    Raises:
        CorpusError: what reading it would raise, as far as that does not need the files' bytes.
    """
    with open_tar(place, digest=digest) as tar:
        for group in key_groups(tar.members, image_extensions, lambda _member, _key: Unread("")):
            tar.seen.note(group)
        tar.finish()
        identity = tar.identity() if digest else None
    return TarContents(tuple(tar.seen.keys), tar.seen.num_samples, identity)


def size_of(place: Place) -> int:
    """How many bytes a tar has.

    Raises:
        CorpusError: the tar is missing, or cannot be looked at.
    """
    location = location_of(place)
    with read_errors(location):
        return location.status().size_bytes


def expected_samples(place: Place) -> int:
    """How many samples a tar has, without reading much: as said beside it, or counted, or guessed from the size.

    Raises:
        CorpusError: the tar is missing or damaged between its members.
    """
    counted = counted_samples(place)
    return guessed_samples(place) if counted is None else counted


def guessed_samples(place: Place) -> int:
    """How many samples a tar of that size may have.

    Raises:
        CorpusError: the tar is missing.
    """
    return -(-size_of(place) // _SAMPLE_BYTES)


def counted_samples(place: Place) -> int | None:
    """How many samples a tar has, as said beside it or counted; None where that would take reading all of it.

    Raises:
        CorpusError: the tar is missing or damaged between its members.
    """
    location = location_of(place)
    for sidecar in _sidecars(location):
        if sidecar.num_samples is not None:
            return sidecar.num_samples
    is_quick = location.is_local and location.suffix == ".tar"
    return scan_tar(location).num_samples if is_quick else None


def tar_keys(place: Place, reading: Mapping[str, Any] | None) -> list[str]:
    """Every key of a tar once, in order of first appearance, without reading the files.

    ``reading``: the identity's field ``corpus.reading``; None: keys as caches without that field have them.

    Raises:
        CorpusError: what ``scan_tar`` raises.
    """
    if reading is not None:
        return list(scan_tar(place, extensions_of(tuple(reading["image_formats"]))).keys)
    with open_tar(place) as tar:
        names = [member.name for member in tar.members if member.kind in ("file", "sparse")]
    matches = (_FIRST_DOT.match(name) for name in names)
    keys = dict.fromkeys(match.group(1) for match in matches if match)
    return [key.encode("utf-8", "backslashreplace").decode() for key in keys]


def first_dot_key(key: str) -> str:
    """A key as caches without the identity's field ``corpus.reading`` have it."""
    match = _FIRST_DOT.match(f"{key}.")
    return match.group(1) if match else key


def _sidecars(location: Location) -> list[Sidecar]:
    def read(name: str) -> bytes | None:
        beside = location.with_name(name)
        try:
            if beside.status().size_bytes > MAX_BYTES:
                raise TarUnusableError(
                    "too long for what is said beside a tar", where=beside, expected=f"{MAX_BYTES} bytes"
                )
            return beside.read_bytes()
        except LocationMissingError:
            return None
        except AccessDeniedError:
            if not location.is_local:  # what a bucket that may not be listed says of an object that is not there
                return None
            raise

    with read_errors(location):
        return read_sidecars(location.name, str(location.parent), read)


__all__ = [
    "OpenTar",
    "Place",
    "Tar",
    "TarContents",
    "TarIdentity",
    "counted_samples",
    "expand_tars",
    "expected_samples",
    "first_dot_key",
    "guessed_samples",
    "open_tar",
    "sample_id",
    "scan_tar",
    "size_of",
    "tar_identity",
    "tar_keys",
    "tar_name",
]
