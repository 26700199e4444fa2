"""A remote file as a stream: fetched in pieces, a few ahead, each with tries of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

PIECE_BYTES = 4 << 20
PIECES_AHEAD = 3


class PieceStream(io.RawIOBase):
    """Reads a file of known length through ``fetch(start, stop)``; seekable.

    No connection stays open between two pieces, so a slow reader loses none, and a broken one costs one piece, not the
    stream. Memory: at most ``1 + ahead`` pieces.
    """

    def __init__(
        self,
        fetch: Callable[[int, int], Any],
        size_bytes: int,
        *,
        piece_bytes: int = PIECE_BYTES,
        ahead: int = PIECES_AHEAD,
    ) -> None:
        """``fetch`` answers with exactly the bytes ``start`` to ``stop``, in a buffer, or raises."""
        super().__init__()
        self._fetch, self._size_bytes, self._piece_bytes, self._ahead = fetch, size_bytes, piece_bytes, ahead
        self._position = 0
        self._pieces: dict[int, Future[Any]] = {}
        self._threads = ThreadPoolExecutor(max(1, ahead), thread_name_prefix="pea-stream")

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be positioned: yes."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; nothing is fetched by that."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the piece at hand goes; 0 at the end."""
        if self._position >= self._size_bytes:
            return 0
        index, offset = divmod(self._position, self._piece_bytes)
        piece = memoryview(self._piece(index))[offset:]
        target = memoryview(buffer).cast("B")
        num_bytes = min(len(piece), len(target))
        target[:num_bytes] = piece[:num_bytes]
        self._position += num_bytes
        return num_bytes

    def _piece(self, index: int) -> Any:
        wanted = range(index, min(index + 1 + self._ahead, -(-self._size_bytes // self._piece_bytes)))
        for dropped in [each for each in self._pieces if each not in wanted]:
            self._pieces.pop(dropped).cancel()
        for each in wanted:
            if each not in self._pieces:
                start = each * self._piece_bytes
                stop = min(start + self._piece_bytes, self._size_bytes)
                self._pieces[each] = self._threads.submit(self._fetch, start, stop)
        return self._pieces[index].result()

    def close(self) -> None:
        """Stop fetching."""
        if not self.closed:
            self._pieces.clear()
            self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()
