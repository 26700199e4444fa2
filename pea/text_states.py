"""Text states of captions, computed once where they fit into memory: the encoders are frozen.

What is returned for a caption never depends on what was asked before, so that a resumed run equals an unbroken one
bit for bit: a matrix product can differ in the last bit with the number of rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Encode = Callable[[Sequence[str]], tuple[Tensor | None, ...]]
_GROUP = 128
"""Captions that are always encoded together when the table is filled."""


class TextStates:
    """`states(captions)`: what `encode` gives for them; from a table if all known ones fit in `max_bytes`."""

    def __init__(self, encode: Encode, known: Iterable[str], max_bytes: int = 2 << 30) -> None:
        self._encode = encode
        self._texts = sorted({"", *known})
        self._table: tuple[Tensor | None, ...] | None = None
        sample = encode(self._texts[:1])
        row_bytes = sum(part.element_size() * part[0].numel() for part in sample if part is not None)
        if row_bytes * len(self._texts) <= max_bytes:
            self._index = {text: row for row, text in enumerate(self._texts)}
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

    def _fill(self) -> tuple[Tensor | None, ...]:
        groups = [self._encode(self._texts[i : i + _GROUP]) for i in range(0, len(self._texts), _GROUP)]
        columns = zip(*groups, strict=True)
        return tuple(
            None if column[0] is None else torch.cat([p for p in column if p is not None]) for column in columns
        )
