"""What a corpus says beside a tar about how much is in it: the count or digest that no hole can pass.

Two kinds are read. ``NAME_stats.json`` is img2dataset's; its ``successes`` are the samples in ``NAME.tar``. Our own
lies at ``NAME.tar.json``, and says any of three things::

    {"format": "pea-tar", "format_version": 1, "num_samples": 1000, "size_bytes": 52428800, "sha256": "9f86…"}

``num_samples`` counts the keys that have an image or a json; size and digest are those of the file as it is stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pea.corpus.byte_streams import RESTORE
from pea.errors import TarUnusableError

FORMAT, FORMAT_VERSION = "pea-tar", 1
MAX_BYTES = 1 << 20
TAR_ENDING = re.compile(r"(\.tar|\.tar\.gz|\.tgz)$")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Sidecar:
    """What one file says about its tar; None: nothing."""

    where: str
    num_samples: int | None = None
    size_bytes: int | None = None
    sha256: str | None = None

    def check_count(self, num_samples: int) -> None:
        """Compare the number of samples.

        Raises:
            CorpusError: there are more or fewer.
        """
        self._compare("samples", self.num_samples, num_samples)

    def check_bytes(self, size_bytes: int, sha256: str) -> None:
        """Compare size and digest.

        Raises:
            CorpusError: they differ.
        """
        self._compare("bytes", self.size_bytes, size_bytes)
        self._compare("sha256", self.sha256, sha256)

    def _compare(self, what: str, said: object, found: object) -> None:
        if said is not None and said != found:
            raise TarUnusableError(
                "the tar is not what is said beside it",
                where=self.where,
                expected=f"{what}: {said}",
                got=found,
                remedy=f"{RESTORE} If it was changed on purpose, correct or delete this file.",
            )


def sidecar_text(num_samples: int, size_bytes: int, sha256: str) -> str:
    """The content of ``NAME.tar.json``."""
    said = {"num_samples": num_samples, "size_bytes": size_bytes, "sha256": sha256}
    return json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **said}) + "\n"


def read_sidecars(tar: str, folder: str, read: Callable[[str], bytes | None]) -> list[Sidecar]:
    """What is said beside a tar of that file name.

    ``read``: name of a file in its folder -> its bytes, at most ``MAX_BYTES``, or None.

    Raises:
        CorpusError: a file of ours, or img2dataset's, says nothing that can be understood.
    """
    found, name = [], f"{tar}.json"
    if (data := read(name)) is not None:
        found.append(_own(f"{folder}/{name}", data))
    name = f"{TAR_ENDING.sub('', tar)}_stats.json"
    if (data := read(name)) is not None:
        where = f"{folder}/{name}"
        document = _document(where, data)
        if "successes" in document:
            found.append(Sidecar(where, num_samples=_count(where, document["successes"])))
    return found


def _own(where: str, data: bytes) -> Sidecar:
    document = _document(where, data)
    if document.get("format") != FORMAT or document.get("format_version") != FORMAT_VERSION:
        raise _unreadable(where, f"format {str(document.get('format'))[:40]!a}")
    sha256 = document.get("sha256")
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise _unreadable(where, "a sha256 that is none")
    num_samples, size_bytes = (
        None if (value := document.get(name)) is None else _count(where, value)
        for name in ("num_samples", "size_bytes")
    )
    return Sidecar(where, num_samples, size_bytes, sha256)


def _document(where: str, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(where, error) from None
    if not isinstance(document, dict):
        raise _unreadable(where, f"a {type(document).__name__}, not an object")
    return document


def _count(where: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _unreadable(where, f"a count of {str(value)[:40]!a}")
    return value


def _unreadable(where: str, got: object) -> TarUnusableError:
    return TarUnusableError(
        "what is said beside the tar cannot be read",
        where=where,
        got=got,
        remedy="Restore this file, or delete it if it is of no use.",
    )
