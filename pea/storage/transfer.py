"""Files and folders from one place to another, verified, and taken up again where they broke off."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pea.errors import StorageError
from pea.storage.location import Location

_BLOCK_BYTES = 4 << 20
_AT_ONCE = 4


@dataclass(frozen=True)
class Copied:
    """What a copy did."""

    num_files: int
    """Files that were copied."""
    num_bytes: int
    """Their size."""
    num_kept: int
    """Files that were there already, with the same content."""


def copy_file(source: Location, destination: Location, *, read_back: bool = True) -> int:
    """Copy one file as a whole, in bounded memory; its size in bytes.

    ``read_back``: compare what was stored with what was read, byte for byte; else only the size.

    Raises:
        StorageError: a store cannot be read or written, or what was stored is not what was read.
    """
    written = _Sums()
    with source.open_stream() as stream:
        destination.write_pieces(written.of(iter(lambda: stream.read(_BLOCK_BYTES), b"")))
    stored = _sums_of(destination) if read_back else _Sums(destination.status().size_bytes, written.crc)
    if (stored.num_bytes, stored.crc) != (written.num_bytes, written.crc):
        expected, got = f"{written.num_bytes} bytes, CRC {written.crc:08x}", f"{stored.num_bytes}, {stored.crc:08x}"
        raise StorageError("the copy is not what was read", where=destination, expected=expected, got=got)
    return written.num_bytes


def copy_folder(
    source: Location,
    destination: Location,
    *,
    read_back: bool = True,
    wanted: Callable[[str], bool] = lambda _: True,
    told: Callable[[str, int], object] = lambda _name, _num_bytes: None,
) -> Copied:
    """Copy what lies below a folder; the same call again after a break copies only what is missing or differs.

    A file that is there with the same size is compared by its content, so that nothing is taken for a copy of
    something else. ``wanted`` is asked for each name below the folder; ``told`` hears of each file when it is there.

    Raises:
        StorageError: as ``copy_file``.
    """
    there = {entry.name: entry.status for entry in destination.entries(recursive=True) if entry.status}

    def copy(name: str, size_bytes: int) -> int | None:
        before, goal = there.get(name), destination.below(name)
        same = before is not None and before.size_bytes == size_bytes and _is_same(source / name, goal)
        num_bytes = None if same else copy_file(source / name, goal, read_back=read_back)
        told(name, num_bytes or 0)
        return num_bytes

    files = [(each.name, each.status.size_bytes) for each in source.entries(recursive=True) if each.status]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pea-copy") as pool:
        copied = list(pool.map(lambda file: copy(*file), [file for file in files if wanted(file[0])]))
    sizes = [size for size in copied if size is not None]
    return Copied(len(sizes), sum(sizes), len(copied) - len(sizes))


def upload_folder(folder: Path, destination: Location) -> Copied:
    """``copy_folder`` from a folder of this machine."""
    return copy_folder(Location.parse(folder), destination)


def download_folder(source: Location, folder: Path) -> Copied:
    """``copy_folder`` to a folder of this machine."""
    return copy_folder(source, Location.parse(folder))


class _Sums:
    """Length and CRC-32 of what passes."""

    def __init__(self, num_bytes: int = 0, crc: int = 0) -> None:
        self.num_bytes, self.crc = num_bytes, crc

    def of(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.num_bytes += len(piece)
            self.crc = zlib.crc32(piece, self.crc)
            yield piece


def _sums_of(place: Location) -> _Sums:
    sums = _Sums()
    with place.open_stream() as stream:
        for _ in sums.of(iter(lambda: stream.read(_BLOCK_BYTES), b"")):
            pass
    return sums


def _is_same(one: Location, other: Location) -> bool:
    first, second = _sums_of(one), _sums_of(other)
    return (first.num_bytes, first.crc) == (second.num_bytes, second.crc)
