"""Bytes that come once and in order: counted, digested, and unpacked where the tar is compressed with gzip."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from pea.errors import ContentChangedError, LocationMissingError, StorageError, TarUnusableError

_PIECE_BYTES = 1 << 20
_GZIP_HEADER = 31  # zlib's word for: a gzip header and trailer, with checksum and length
_BOMB_BYTES = 64 << 20
_BOMB_RATIO = 100

_GZIP = b"\x1f\x8b"
_REFUSED = {
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -d"),
    b"PK\x03\x04": ("zip", "unzip"),
}


@contextmanager
def read_errors(where: object) -> Iterator[None]:
    """Say of what the storage refuses that it is a tar.

    Raises:
        CorpusError: it is missing, cannot be read, or changes while it is read.
    """
    try:
        yield
    except LocationMissingError as error:
        raise TarUnusableError("no such tar", where=where) from error
    except ContentChangedError as error:
        remedy = "Let it be, and run again."
        raise TarUnusableError("the tar changed while it was read", where=where, remedy=remedy) from error
    except (StorageError, OSError) as error:
        got = error if isinstance(error, StorageError) else error.strerror or error
        raise TarUnusableError("cannot read the tar", where=where, got=got) from error


class ByteStream(Protocol):
    """What a tar is read from."""

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer only at the end."""

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes, or to the end."""


class StoredBytes:
    """The bytes of a file or an object as they are stored. Needs ``read(n)`` alone; seeks where that saves reading."""

    def __init__(self, stream: BinaryIO, where: object, *, digest: bool = False) -> None:
        """``digest``: compute the sha256 of all bytes, which are then all read."""
        self._stream, self._where = stream, where
        self._sha256 = hashlib.sha256() if digest else None
        self._seekable = not digest and stream.seekable()
        self._ahead = b""
        self.num_read = 0

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes, which stay to be read; fewer only at the end."""
        self._ahead += self._read(count - len(self._ahead))
        return self._ahead[:count]

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer only at the end.

        Raises:
            CorpusError: the system refuses to read on.
        """
        ahead, self._ahead = self._ahead[:count], self._ahead[count:]
        return ahead + self._read(count - len(ahead)) if len(ahead) < count else ahead

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes. A seek may go beyond the end, where nothing more is read."""
        count -= len(self.read(min(count, len(self._ahead))))
        if count and self._seekable:
            self._stream.seek(count, 1)
            return
        while count > 0 and (piece := self._read(min(count, _PIECE_BYTES))):
            count -= len(piece)

    @property
    def sha256(self) -> str:
        """Digest of everything that was read."""
        assert self._sha256 is not None
        return self._sha256.hexdigest()

    def _read(self, count: int) -> bytes:
        pieces: list[bytes] = []
        while count > 0:
            with read_errors(self._where):
                piece = self._stream.read(min(count, _PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
        data = b"".join(pieces)
        self.num_read += len(data)
        if self._sha256 is not None:
            self._sha256.update(data)
        return data


class GunzippedBytes:
    """What a gzip file holds; its checksums and lengths are compared, and all its parts are read to the last byte."""

    def __init__(self, stored: StoredBytes, where: object) -> None:
        self._stored, self._where = stored, where
        self._unpack = zlib.decompressobj(_GZIP_HEADER)
        self._packed, self._ready, self._num_unpacked = b"", bytearray(), 0

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer only at the end.

        Raises:
            CorpusError: damaged, truncated, or so small that what it unpacks to cannot be honest.
        """
        while len(self._ready) < count and (piece := self._next(count - len(self._ready))):
            self._ready += piece
        found = bytes(self._ready[:count])
        del self._ready[:count]
        return found

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes, or to the end, piece by piece."""
        while count > 0 and (piece := self.read(min(count, _PIECE_BYTES))):
            count -= len(piece)

    def _next(self, count: int) -> bytes:
        """Some more bytes; none at the end."""
        while True:
            if not self._packed:
                self._packed = self._stored.read(1 << 16)
            if self._unpack.eof:
                if not self._packed:
                    return b""
                self._unpack = zlib.decompressobj(_GZIP_HEADER)  # gzip files may follow each other: that is one file
            if not self._packed and not self._unpack.eof:
                raise TarUnusableError("the compressed tar is truncated", where=self._where, remedy=RESTORE)
            piece = self._decompress(min(count, _PIECE_BYTES))
            if piece:
                return piece

    def _decompress(self, count: int) -> bytes:
        try:
            piece = self._unpack.decompress(self._packed, count)
        except zlib.error as error:
            raise TarUnusableError(
                "the compressed tar is damaged", where=self._where, got=error, remedy=RESTORE
            ) from error
        self._packed = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail
        self._num_unpacked += len(piece)
        if self._num_unpacked > _BOMB_BYTES + _BOMB_RATIO * self._stored.num_read:
            raise TarUnusableError(
                "the compressed tar unpacks to far more than images and captions can",
                where=self._where,
                got=f"{self._num_unpacked} bytes from {self._stored.num_read}",
                remedy="If it is yours, unpack it with `gunzip` and give the .tar.",
            )
        return piece


RESTORE = "Restore the tar from its source."
"""What helps against damage."""


def unpacked(stored: StoredBytes, where: object) -> ByteStream:
    """The bytes of the tar itself: as stored, or unpacked from gzip, told by their first bytes and not by the name.

    Raises:
        CorpusError: it is compressed in another way.
    """
    start = stored.peek(6)
    if start.startswith(_GZIP):
        return GunzippedBytes(stored, where)
    for magic, (name, command) in _REFUSED.items():
        if start.startswith(magic):
            raise TarUnusableError(
                f"a tar with {name} is not read",
                where=where,
                expected="a tar, plain or with gzip",
                remedy=f"Unpack it with `{command}`.",
            )
    return stored
