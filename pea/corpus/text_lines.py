"""The lines of a text file of any size and encoding, each of bounded length."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from pea.errors import CorpusError
from pea.storage.location import Location

MAX_LINE_CHARACTERS = 16 << 20
_START_CHARACTERS = 4096
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),  # begins as the next one does
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\0\0\xfe\xff", "utf-32"),
)

_NO_TEXT = {
    b"PK\x03\x04": "an Excel workbook, or a zip archive; save it as `CSV UTF-8`, or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook of the old kind; save it as `CSV UTF-8`",
    b"PAR1": "an Apache Parquet file; give it a name that ends in .parquet",
    b"\x28\xb5\x2f\xfd": "a file compressed with zstd; unpack it with `zstd -d`",
    b"BZh": "a file compressed with bzip2; unpack it with `bunzip2`",
    b"\xfd7zXZ\0": "an xz archive; unpack it with `unxz`",
    b"%PDF-": "a PDF; copy its table into a CSV",
    b"SQLite format 3\0": "an SQLite database; write its table as CSV",
    b"ARROW1": "an Apache Arrow file; give it a name that ends in .arrow",
}
"""How files begin that are no text, and what to do with them."""


@dataclass(frozen=True)
class TextOptions:
    """How a text is written; None: to be found out."""

    delimiter: str | None = None
    encoding: str | None = None
    names: tuple[str, ...] | None = None


def encoding_of(start: bytes) -> str:
    """The encoding of a text, as far as its first bytes show it."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    zeros = Counter(place % 2 for place, byte in enumerate(start) if not byte)
    if sum(zeros.values()) * 4 > len(start):  # UTF-16 without its mark; Latin letters show which half comes first
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    return "utf-8"


class TextFile:
    """The lines of a text of any encoding, unpacked where it is compressed with gzip."""

    def __init__(self, location: Location, encoding: str | None) -> None:
        self._location = location
        try:
            self._encoding = encoding or self._found_encoding()
            "".encode(self._encoding)
        except LookupError:
            raise CorpusError("no such encoding", where=location, got=encoding) from None

    @contextmanager
    def lines(self) -> Iterator[Iterator[str]]:
        """Its lines with their ends."""
        with self._bytes() as data, io.TextIOWrapper(data, self._encoding, newline="") as text:
            yield self._bounded(text)

    def start(self) -> str:
        """Its first characters."""
        with self._decoded() as text:
            return text.read(_START_CHARACTERS)

    def whole(self) -> str:
        """All of it."""
        with self._decoded() as text:
            return text.read()

    @contextmanager
    def _decoded(self) -> Iterator[TextIO]:
        try:
            with self._bytes() as data, io.TextIOWrapper(data, self._encoding) as text:
                yield text
        except UnicodeError as error:
            raise self._undecodable(error, 0) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CorpusError("the compressed table is damaged", where=self._location, got=error) from error

    def _bounded(self, text: TextIO) -> Iterator[str]:
        number = 0
        while True:
            try:
                line = text.readline(MAX_LINE_CHARACTERS)
            except UnicodeError as error:
                raise self._undecodable(error, number) from None
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise CorpusError("the compressed table is damaged", where=self._location, got=error) from error
            if not line:
                return
            number += 1
            if len(line) >= MAX_LINE_CHARACTERS:
                expected = f"at most {MAX_LINE_CHARACTERS} characters"
                raise CorpusError("too long a line", where=f"{self._location}:{number}", expected=expected)
            yield line

    def _undecodable(self, error: UnicodeError, number: int) -> CorpusError:
        if isinstance(error, UnicodeDecodeError):
            number += bytes(error.object[: error.start]).count(b"\n")
        return CorpusError(
            f"the text is not {self._encoding.upper()}",
            where=f"{self._location}:{number + 1}",
            got=getattr(error, "reason", error),
            remedy="Save it as UTF-8 (in Excel: `CSV UTF-8`).",
        )

    def _found_encoding(self) -> str:
        with self._bytes() as data:
            try:
                start = data.read(4096)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise CorpusError("the compressed table is damaged", where=self._location, got=error) from error
        for mark, kind in _NO_TEXT.items():
            if start.startswith(mark):
                raise CorpusError("no text, whatever it is called", where=self._location, got=kind)
        return encoding_of(start)

    @contextmanager
    def _bytes(self) -> Iterator[Any]:
        with self._location.open_stream() as stream:
            compressed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            yield gzip.GzipFile(fileobj=stream) if compressed else io.BufferedReader(stream)
