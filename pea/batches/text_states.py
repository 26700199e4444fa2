"""Text states of captions, computed once where they fit into memory or are kept on disk: the encoders are frozen.

What is returned for a caption never depends on what was asked before, so that a resumed run equals an unbroken one
bit for bit: a matrix product can differ in the last bit with the number of rows beside it. So there is no table that
fills as captions come: either all are in it, in groups that never change, or each batch is encoded as a whole.

Of a caption in the table its digest is kept in memory, 16 bytes, not its text.

Shapes: N captions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pea.batches.text_files import Digests, TextFiles

Encode = Callable[[Sequence[str]], tuple[Tensor | None, ...]]
_GROUP = 128
"""Captions that are always encoded together when the table is filled."""
_DIGESTED_AT_ONCE = 1 << 16


class Store(NamedTuple):
    """Where text states are kept."""

    folder: Path
    """Of this and other captions and encoders."""
    encoder: str
    """Digest of whatever decides the encoder's answers."""


class TextStates:
    """`states(captions)`: what `encode` gives for them; from a table if all known ones fit in `max_bytes`."""

    def __init__(
        self, encode: Encode, known: Iterable[str], max_bytes: int = 2 << 30, store: Store | None = None
    ) -> None:
        """`known`: captions, some perhaps several times; gone through more than once, and not kept.

        `store`: where the table is kept on disk, whatever its size, from the first run that needs it on. Of several
        processes that need it at once the first one makes it, and the others wait.

        Raises:
            CacheError: what is stored is damaged, or it cannot be stored.
            DiskFullError: there is no room to store it.
        """
        self._encode = encode
        self._digests: Digests = np.empty(0, dtype="S16")
        self._table: tuple[Tensor | None, ...] | None = None
        if store is not None:
            self._digests = digests(chain([""], known))
            files = TextFiles(store.folder, store.encoder, self._digests)
            self._table = files.read_or_write(self._groups(known))
        elif (texts := distinct(known, max_bytes // self._row_bytes())) is not None:
            self._digests = digests(texts)
            self._table = _joined(self._groups(texts))

    @property
    def in_memory(self) -> bool:
        """Whether the states come from a table."""
        return self._table is not None

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor | None, ...]:
        """Each part of the encoder's answer, `[B, ...]`; captions outside the table are encoded as one batch."""
        if self._table is None:
            return self._encode(captions)
        wanted = np.array([_digest(text) for text in captions], dtype=self._digests.dtype)
        places = np.minimum(np.searchsorted(self._digests, wanted), len(self._digests) - 1)
        if (self._digests[places] != wanted).any():
            return self._encode(captions)
        rows = torch.from_numpy(places)
        return tuple(None if part is None else part[rows.to(part.device)] for part in self._table)

    def _row_bytes(self) -> int:
        """Bytes of one caption's states."""
        return sum(part.element_size() * part[0].numel() for part in self._encode([""]) if part is not None)

    def _groups(self, known: Iterable[str]) -> Iterator[tuple[Tensor | None, ...]]:
        """The states of the captions in the order of their digests."""
        texts = {_digest(text): text for text in chain([""], known)}
        ordered = (texts[digest] for digest in sorted(texts))
        while group := list(islice(ordered, _GROUP)):
            yield self._encode(group)


def digests(texts: Iterable[str]) -> Digests:
    """The digest of each different text, ascending: bytes of length 16, `[N]`."""
    parts, rest = [np.empty(0, dtype="S16")], iter(texts)
    while some := set(islice(rest, _DIGESTED_AT_ONCE)):
        parts.append(np.array([_digest(text) for text in some], dtype="S16"))
    return np.unique(np.concatenate(parts))


def distinct(texts: Iterable[str], limit: int) -> set[str] | None:
    """The different texts, with the empty one; None: they are more than `limit`."""
    found = {""}
    for text in texts:
        found.add(text)
        if len(found) > limit:
            return None
    return found


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _joined(groups: Iterable[tuple[Tensor | None, ...]]) -> tuple[Tensor | None, ...]:
    columns = zip(*groups, strict=True)
    return tuple(None if column[0] is None else torch.cat([p for p in column if p is not None]) for column in columns)
