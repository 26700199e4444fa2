"""Tar files as a whole: which ones there are, what makes two the same, whether one is intact, its keys."""

from __future__ import annotations

import glob
import hashlib
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pea.errors import CorpusError

_BLOCK_BYTES = 512  # of the tar format
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.][^/]*$")  # key, then everything after the first dot: as webdataset splits


@dataclass(frozen=True)
class TarIdentity:
    """What makes two tars the same."""

    name: str
    """File name without ``.tar``."""
    size_bytes: int
    """Size of the file."""
    sha256: str
    """Digest of the file."""


def sample_id(tar: str, key: str) -> str:
    """The id of a sample, from which its draws follow."""
    return f"{tar}/{key}"


def tar_name(path: str | Path) -> str:
    """The name of a tar: its file name without ``.tar``."""
    return Path(path).name.removesuffix(".tar")


def expand_tars(patterns: Sequence[str]) -> list[Path]:
    """The tars that paths and glob patterns name, sorted by name.

    Raises:
        CorpusError: a pattern matches nothing, or two tars have one name.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
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
    """Name, size and sha256 of a tar.

    Raises:
        CorpusError: the file cannot be read.
    """
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                size_bytes += len(block)
    except OSError as error:
        raise CorpusError("cannot read the tar", where=path, got=error.strerror) from error
    return TarIdentity(tar_name(path), size_bytes, digest.hexdigest())


def check_tar(path: str | Path) -> None:
    """Make sure that a tar is whole. ``tarfile`` ends silently at a damaged header or a missing end mark.

    Raises:
        CorpusError: missing, not a plain tar, truncated, or damaged between its members.
    """
    remedy = "Restore the tar from its source."
    if scan_headers(Path(path))[1]:
        return
    try:  # with care, to say what is wrong
        with tarfile.open(path, "r:") as archive:
            for _ in archive:
                archive.members = []  # type: ignore[attr-defined]  # keeps memory flat
            end = archive.offset
        with Path(path).open("rb") as file:
            file.seek(end)
            mark = file.read(_BLOCK_BYTES)
    except FileNotFoundError as error:
        raise CorpusError("no such tar", where=path) from error
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise CorpusError(
            "the tar is damaged, truncated, or compressed", where=path, got=error, remedy=remedy
        ) from error
    if len(mark) < _BLOCK_BYTES:
        raise CorpusError("the tar is truncated: it has no end mark", where=path, got=f"{end} bytes", remedy=remedy)
    if mark.strip(b"\0"):
        raise CorpusError("the tar is damaged: no header", where=path, got=f"other bytes at {end}", remedy=remedy)


def scan_headers(path: Path) -> tuple[list[bytes], bool]:
    """Names of a tar's members, up to the first header that is unusual or damaged, and whether all were read.

    Ten times as quick as ``tarfile``; what it does not understand is left to that.

    Raises:
        CorpusError: the file cannot be read.
    """
    names: list[bytes] = []
    try:
        with path.open("rb") as file:
            while len(header := file.read(_BLOCK_BYTES)) == _BLOCK_BYTES:
                if not header.strip(b"\0"):
                    return names, True
                size, checksum = (int(header[a:b].strip(b" \0") or b"0", 8) for a, b in ((124, 136), (148, 156)))
                if size < 0 or sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum:
                    break
                names.append(header[:100].rstrip(b"\0"))
                file.seek(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES, 1)
    except ValueError:  # a size in another notation
        pass
    except FileNotFoundError as error:
        raise CorpusError("no such tar", where=path) from error
    except OSError as error:
        raise CorpusError("cannot read the tar", where=path, got=error) from error
    return names, False


def tar_keys(path: str | Path) -> list[str]:
    """Every key of a tar once, in order of first appearance, without reading the files.

    Raises:
        CorpusError: the tar cannot be read.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            matches = (_NAME.match(member.name) for member in archive if member.isreg())
            keys = [match.group(1) for match in matches if match]
    except (OSError, tarfile.TarError) as error:
        raise CorpusError("cannot read the tar", where=path, got=error) from error
    return [key.encode("utf-8", "backslashreplace").decode() for key in dict.fromkeys(keys)]
