"""The tar format, read once from its first byte to its last: the members, and the proof that none is missing.

A reader that takes the first block of zeros for the end loses whatever lies behind a hole in the file. Here a tar
ends as the programs that write tars end it, or the whole tar is refused: two blocks (of 512 bytes) of zeros behind the
last member, then nothing but zeros, and those no farther than the next multiple of 10,240 bytes, where the file ends.

What this cannot see is the format's, and named: members that *begin* in the last 10,240 bytes of the file, where zeros
reach from one of them to the end, for that is how padding looks; and what is *in* a member, over which the format has
no checksum. A count beside the tar closes the first, a digest there (``pea.corpus.sidecars``) both; and once a cache
is begun, its manifest holds the digest of every tar.

Headers are parsed by ``tarfile``. Its iterators, which webdataset uses, are not used here: they end in silence at a
damaged header and at any block of zeros.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Literal

from pea.corpus.byte_streams import RESTORE, ByteStream
from pea.errors import TarUnusableError

BLOCK_BYTES = 512
RECORD_BYTES = 10_240
_ZEROS = bytes(BLOCK_BYTES)
_MAX_EXTENDED_BYTES = 1 << 20  # of one extended header; real ones have a path and some times
_MAX_SIZE_BYTES = 1 << 60
_LONG_NAME, _LONG_LINK, _GLOBAL = b"L", b"K", b"g"
_EXTENDED = (b"x", b"X")
_HEADER_CONTINUED, _MAP_CONTINUED = 482, 504  # where old GNU tars say that a sparse file's map goes on
_SPARSE_FIELD = "GNU.sparse."

MemberKind = Literal["file", "sparse", "link", "directory", "special"]


class Member:
    """One entry of a tar. Its bytes can be read until the next one is asked for."""

    def __init__(self, tar: TarReader, name: str, kind: MemberKind, size_bytes: int) -> None:
        self._tar, self.name, self.kind, self.size_bytes = tar, name, kind, size_bytes

    def read(self) -> bytes:
        """All its bytes, as stored.

        Raises:
            CorpusError: the tar ends before.
        """
        return self._tar.read_member(self.size_bytes)


class TarReader:
    """Iterates over the members of a tar, in one pass, and proves its end."""

    def __init__(self, stream: ByteStream, where: object) -> None:
        self._stream, self._where = stream, where
        self._offset, self._unread, self._shared = 0, 0, dict[str, str]()
        self._continued = False  # whether blocks of a sparse map follow the header

    def __iter__(self) -> Iterator[Member]:
        """Every member: files, and what is none.

        Raises:
            CorpusError: truncated, damaged between its members, or its end is not proven.
        """
        own, extends = dict[str, str](), False
        while (header := self._next_header()) is not None:
            extends = header.type in (*_EXTENDED, _LONG_NAME, _LONG_LINK)
            if header.type == _GLOBAL:
                self._shared |= self._fields(header)
            elif header.type in _EXTENDED:
                own |= self._fields(header)
            elif header.type in (_LONG_NAME, _LONG_LINK):
                name = self._extended(header).partition(b"\0")[0].decode("utf-8", "surrogateescape")
                own |= {"path": name} if header.type == _LONG_NAME else {}
            else:
                yield self._member(header, {**self._shared, **own})
                own = {}
        if extends:
            raise self._damaged("the last header belongs to no member")
        self._prove_end()

    def read_member(self, size_bytes: int) -> bytes:
        """What is left of the current member. For ``Member`` alone."""
        data = self._stream.read(size_bytes)
        self._offset += len(data)
        self._unread -= len(data)
        if len(data) < size_bytes:
            raise self._truncated()
        return data

    def _next_header(self) -> tarfile.TarInfo | None:
        """The header behind the current member; None: a block of zeros."""
        if self._unread:
            self._stream.skip(self._unread)
            self._offset, self._unread = self._offset + self._unread, 0
        block = self._block()
        if block == _ZEROS:
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._damaged(f"no header at {self._offset - BLOCK_BYTES}") from error
        self._unread, self._continued = _padded(self._size(header.size)), bool(block[_HEADER_CONTINUED])
        return header

    def _block(self) -> bytes:
        block = self._stream.read(BLOCK_BYTES)
        self._offset += len(block)
        if len(block) < BLOCK_BYTES:
            raise self._truncated()
        return block

    def _member(self, header: tarfile.TarInfo, fields: dict[str, str]) -> Member:
        name = fields.get(_SPARSE_FIELD + "name") or fields.get("path") or header.name
        if header.type == tarfile.GNUTYPE_SPARSE:
            more = self._continued
            while more:  # the map of the holes goes on in blocks of its own
                more = bool(self._block()[_MAP_CONTINUED])
        has_bytes = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        size = self._size(fields.get("size", header.size)) if has_bytes else 0
        self._unread = _padded(size)
        return Member(self, name, _kind(header, fields), size)

    def _fields(self, header: tarfile.TarInfo) -> dict[str, str]:
        """The records of a pax header: ``<length> <name>=<value>`` and a line feed each."""
        data, fields = self._extended(header).rstrip(b"\0"), dict[str, str]()
        while data:
            length, _, _ = data.partition(b" ")
            if not (length.isdigit() and len(length) < 8 and len(length) + 3 <= int(length) <= len(data)):
                raise self._damaged("an extended header that is none")
            record, data = data[len(length) + 1 : int(length)], data[int(length) :]
            name, equals, value = record.decode("utf-8", "surrogateescape").partition("=")
            if not equals or not value.endswith("\n"):
                raise self._damaged("an extended header that is none")
            fields[name] = value[:-1]
        return fields

    def _extended(self, header: tarfile.TarInfo) -> bytes:
        if header.size > _MAX_EXTENDED_BYTES:
            raise self._damaged(f"an extended header of {header.size} bytes")
        return self.read_member(header.size)

    def _size(self, size: int | str) -> int:
        """A size that a header or an extended header states, in bytes."""
        if isinstance(size, str) and not (size.isascii() and size.isdigit() and len(size) < 20):
            raise self._damaged(f"a size of {size[:20]!a}")
        if not 0 <= int(size) < _MAX_SIZE_BYTES:
            raise self._damaged("a size that no file has")
        return int(size)

    def _prove_end(self) -> None:
        """Make sure that the block of zeros that was just read begins the end of the file."""
        mark = self._offset - BLOCK_BYTES
        end = -(-(mark + 2 * BLOCK_BYTES) // RECORD_BYTES) * RECORD_BYTES
        rest = self._stream.read(end - self._offset + 1)
        first_other = len(rest) - len(rest.lstrip(b"\0"))
        if first_other < len(rest):
            raise TarUnusableError(
                "bytes behind the tar's end mark: a hole in the file, or two tars joined",
                where=self._where,
                got=f"zeros from {mark} and other bytes at {self._offset + first_other}",
                remedy=f"{RESTORE} Give joined tars one by one.",
            )
        if len(rest) > end - self._offset:
            raise TarUnusableError(
                "more zeros at the end of the tar than padding explains: a hole in the file",
                where=self._where,
                expected=f"the end at {end} bytes or before, as zeros begin at {mark}",
                remedy=f"{RESTORE} If it is whole (a blocking factor above 20), write it again: `tar -b 20`.",
            )
        if len(rest) < BLOCK_BYTES:
            raise self._truncated()

    def _truncated(self) -> TarUnusableError:
        got = f"the end of the file behind {self._offset} bytes"
        return TarUnusableError("the tar is truncated: it has no end mark", where=self._where, got=got, remedy=RESTORE)

    def _damaged(self, what: str) -> TarUnusableError:
        return TarUnusableError("the tar is damaged, or is none", where=self._where, got=what, remedy=RESTORE)


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _kind(header: tarfile.TarInfo, fields: dict[str, str]) -> MemberKind:
    if header.type == tarfile.GNUTYPE_SPARSE or any(name.startswith(_SPARSE_FIELD) for name in fields):
        return "sparse"
    if header.isreg():
        return "file"
    if header.isdir():
        return "directory"
    return "link" if header.issym() or header.islnk() else "special"
