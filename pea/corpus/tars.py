"""Tar files as a whole: which ones there are, what makes two the same, whether one is intact, its keys."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pea.corpus.archive import TarReader
from pea.corpus.byte_streams import RESTORE, StoredBytes, unpacked
from pea.corpus.grouping import SeenKeys, Unread, key_groups
from pea.corpus.rules import DEFAULT_FORMATS, extensions_of
from pea.corpus.sidecars import MAX_BYTES, TAR_ENDING, Sidecar, read_sidecars
from pea.errors import CorpusError

_FIRST_DOT = re.compile(r"^((?:.*/|)[^.]+)[.][^/]*$")
_SAMPLE_BYTES = 100_000  # to guess a number of samples from the size of a tar


@dataclass(frozen=True)
class TarIdentity:
    """What makes two tars the same."""

    name: str
    """File name without ``.tar``, ``.tar.gz`` or ``.tgz``."""
    size_bytes: int
    """Size of the file."""
    sha256: str
    """Digest of the file."""


@dataclass(frozen=True)
class TarContents:
    """What a look at the headers of a whole tar finds."""

    keys: tuple[str, ...]
    """Every key once, in order of first appearance, as it is recorded."""
    num_samples: int
    """Keys with an image or a json."""


class OpenTar:
    """A tar that is being read, from its first byte to its last."""

    def __init__(self, path: Path, stored: StoredBytes, sidecars: Sequence[Sidecar]) -> None:
        self._path, self._stored, self._sidecars = path, stored, sidecars
        self.members = TarReader(unpacked(stored, path), path)
        self.seen = SeenKeys(path)

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
        if (self._stored.num_read, self._stored.sha256) != (expect.size_bytes, expect.sha256):
            raise CorpusError(
                "the tar has changed since the cache was begun",
                where=self._path,
                expected=f"sha256 {expect.sha256[:12]}…",
                got=f"{self._stored.sha256[:12]}…",
                remedy=RESTORE,
            )


@contextmanager
def open_tar(path: str | Path, *, digest: bool = False) -> Iterator[OpenTar]:
    """Open a tar for one pass. ``digest``: read every byte, so that the tar can be compared with its identity.

    Raises:
        CorpusError: it is missing or unreadable, or changes while it is open.
    """
    path = Path(path)
    sidecars = _sidecars(path)
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise CorpusError("no such tar", where=path) from error
    except OSError as error:
        raise CorpusError("cannot read the tar", where=path, got=error.strerror) from error
    with stream:
        before = os.fstat(stream.fileno())
        yield OpenTar(path, StoredBytes(stream, path, digest=digest), sidecars)
        after = os.fstat(stream.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise CorpusError("the tar changed while it was read", where=path, remedy="Let it be, and try again.")


def sample_id(tar: str, key: str) -> str:
    """The id of a sample, from which its draws follow."""
    return f"{tar}/{key}"


def tar_name(path: str | Path) -> str:
    """The name of a tar: its file name without ``.tar``, ``.tar.gz`` or ``.tgz``."""
    return TAR_ENDING.sub("", Path(path).name)


def expand_tars(patterns: Sequence[str]) -> list[Path]:
    """The tars that paths and glob patterns name, sorted by name. A path that exists is never taken for a pattern.

    Raises:
        CorpusError: a pattern matches nothing, or two tars have one name.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        literal = Path(pattern)
        matches = [literal] if literal.exists() else [Path(each) for each in sorted(glob.glob(pattern, recursive=True))]
        if not matches:
            raise CorpusError(
                "no such tar",
                where=pattern,
                remedy="Correct corpora.*.tars, or run the stage that writes them.",
            )
        for path in matches:
            other = found.setdefault(tar_name(path), path)
            if other.resolve() != path.resolve():
                raise CorpusError(f"two tars are named {tar_name(path)}", got=f"{other} and {path}")
    return [found[name] for name in sorted(found)]


def tar_identity(path: str | Path) -> TarIdentity:
    """Name, size and sha256 of a tar, which agree with what is said beside it.

    Raises:
        CorpusError: the file cannot be read, or is not what is said beside it.
    """
    path = Path(path)
    sidecars = _sidecars(path)
    try:
        with path.open("rb") as stream:
            stored = StoredBytes(stream, path, digest=True)
            while stored.read(1 << 22):
                pass
    except OSError as error:
        raise CorpusError("cannot read the tar", where=path, got=error.strerror) from error
    for sidecar in sidecars:
        sidecar.check_bytes(stored.num_read, stored.sha256)
    return TarIdentity(tar_name(path), stored.num_read, stored.sha256)


def scan_tar(path: str | Path, image_extensions: Sequence[str] = extensions_of(DEFAULT_FORMATS)) -> TarContents:
    """Look at every header of a tar, by the code that reads it, without reading images and jsons.

    Raises:
        CorpusError: what reading it would raise, as far as that does not need the files' bytes.
    """
    with open_tar(path) as tar:
        for group in key_groups(tar.members, image_extensions, lambda _member, _key: Unread("")):
            tar.seen.note(group)
        tar.finish()
    return TarContents(tuple(tar.seen.keys), tar.seen.num_samples)


def check_tars(
    paths: Iterable[str | Path], image_extensions: Sequence[str] = extensions_of(DEFAULT_FORMATS)
) -> list[str]:
    """Make sure that the tars of a corpus are whole, before anything is spent; returns the names of empty ones.

    Raises:
        CorpusError: one is missing, truncated, or damaged between its members, or no tar has a sample.
    """
    num_samples = {tar_name(path): scan_tar(path, image_extensions).num_samples for path in paths}
    if not any(num_samples.values()):
        raise CorpusError(
            "the corpus has no samples",
            got=f"{len(num_samples)} tars, none with an image or a json in it",
            remedy="Correct corpora.*.tars; the files of a sample are called KEY.jpg (or png, webp) and KEY.json.",
        )
    return [name for name, count in num_samples.items() if not count]


def expected_samples(path: str | Path) -> int:
    """How many samples a tar has, without reading much: as said beside it, or counted, or guessed from the size.

    Raises:
        CorpusError: the tar is missing or damaged between its members.
    """
    path = Path(path)
    for sidecar in _sidecars(path):
        if sidecar.num_samples is not None:
            return sidecar.num_samples
    if path.suffix == ".tar":
        return scan_tar(path).num_samples
    return -(-path.stat().st_size // _SAMPLE_BYTES)


def tar_keys(path: str | Path, reading: Mapping[str, Any] | None) -> list[str]:
    """Every key of a tar once, in order of first appearance, without reading the files.

    ``reading``: the identity's field ``corpus.reading``; None: keys as caches without that field have them.

    Raises:
        CorpusError: what ``scan_tar`` raises.
    """
    if reading is not None:
        return list(scan_tar(path, extensions_of(tuple(reading["image_formats"]))).keys)
    with open_tar(path) as tar:
        names = [member.name for member in tar.members if member.kind in ("file", "sparse")]
    matches = (_FIRST_DOT.match(name) for name in names)
    keys = dict.fromkeys(match.group(1) for match in matches if match)
    return [key.encode("utf-8", "backslashreplace").decode() for key in keys]


def _sidecars(path: Path) -> list[Sidecar]:
    def read(beside: str) -> bytes | None:
        try:
            with Path(beside).open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CorpusError("cannot read what is said beside the tar", where=beside, got=error.strerror) from error

    return read_sidecars(str(path), read)
