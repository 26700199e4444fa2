"""Text states of captions, computed once where they fit into memory: the encoders are frozen.

What is returned for a caption never depends on what was asked before, so that a resumed run equals an unbroken one
bit for bit: a matrix product can differ in the last bit with the number of rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pea.text_files import TextFiles

Encode = Callable[[Sequence[str]], tuple[Tensor | None, ...]]
_GROUP = 128
"""Captions that are always encoded together when the table is filled."""


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
        """`store`: where the table is kept on disk, whatever its size, from the first run that needs it on.

        Raises:
            CacheError: what is stored is damaged.
            DiskFullError: it cannot be stored.
        """
        self._encode = encode
        self._texts = sorted({"", *known})
        self._index = {text: row for row, text in enumerate(self._texts)}
        self._table: tuple[Tensor | None, ...] | None = None
        if store is not None:
            files = TextFiles(store.folder, store.encoder, self._texts)
            self._table = files.read() or files.write(self._groups())
            return
        sample = encode(self._texts[:1])
        row_bytes = sum(part.element_size() * part[0].numel() for part in sample if part is not None)
        if row_bytes * len(self._texts) <= max_bytes:
            self._table = self._fill()

    @property
    def in_memory(self) -> bool:
        """Whether the states come from a table."""
        return self._table is not None

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor | None, ...]:
        """Each part of the encoder's answer, `[B, ...]`; captions outside the table are encoded as one batch."""
        if self._table is None or any(text not in self._index for text in captions):
            return self._encode(captions)
        rows = torch.tensor([self._index[text] for text in captions], dtype=torch.int64)
        return tuple(None if part is None else part[rows.to(part.device)] for part in self._table)

    def _groups(self) -> Iterator[tuple[Tensor | None, ...]]:
        return (self._encode(self._texts[i : i + _GROUP]) for i in range(0, len(self._texts), _GROUP))

    def _fill(self) -> tuple[Tensor | None, ...]:
        columns = zip(*self._groups(), strict=True)
        return tuple(
            None if column[0] is None else torch.cat([p for p in column if p is not None]) for column in columns
        )
