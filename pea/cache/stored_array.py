"""Read rows of a stored array with tensorstore, verified: never a fill value in place of what is missing.

tensorstore checks the crc32c of every chunk it uses and refuses one that is not there. What it cannot know comes from
the completion record: which files must be there, how long they are, and the digest of the metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from pea.cache.array_layout import check_files, read_layout
from pea.cache.completion import FileEntry
from pea.cache.rows_reading import RowsReading, first_line, library, wait_for
from pea.cache.store_copies import StoreCopies
from pea.cache.strict_json import parse
from pea.errors import CacheError, LocationMissingError, ShardDamagedError, StorageError
from pea.storage.location import Location

_REMEDY = "Run `pea inspect check --repair`, then `pea cache` again."
_MOST_METADATA_BYTES = 4 << 20
_DAMAGE = ("DATA_LOSS", "NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE")
"""How tensorstore's messages begin when bytes were read and are wrong, or are not there."""


class StoredArray:
    """One array of a finished store."""

    def __init__(
        self,
        store: Location,
        name: str,
        files: Mapping[str, FileEntry],
        sizes: Mapping[str, int] | None = None,
        copies: StoreCopies | None = None,
    ) -> None:
        """Check the array's metadata and that its files are there.

        ``files``: what the completion record lists; ``sizes``: what is there, where a listing was made already;
        ``copies``: files are read as copies on this machine's disk, as far as these have room.

        Raises:
            ShardDamagedError: a file is missing, of another size, or the metadata was changed.
            CacheError: the array is not laid out as this format version says.
            StorageError: the storage cannot be read.
        """
        self._store, self._name, self._files, self._sizes, self._copies = store, name, files, sizes, copies
        metadata = self._read_metadata()
        try:
            self.layout = read_layout(metadata)
        except ValueError as error:
            raise CacheError("not an array of this format", where=store / name, got=error) from None
        if problem := check_files(self.layout, name, files):
            self._damaged(store / name, problem)
        for number in range(self.layout.num_files):
            self._check_file(f"{name}/{self.layout.file_name(number)}")
        self._rows = RowsReading(name, metadata)

    def __len__(self) -> int:
        return self.layout.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values; bfloat16 is kept as uint16."""
        return self.layout.dtype

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """One per dimension."""
        return self.layout.dimension_names

    @property
    def attributes(self) -> dict[str, Any]:
        """Meaning, units, source."""
        return self.layout.attributes

    @property
    def rows_apart(self) -> bool:
        """Whether every row is a chunk of its own, uncompressed: one can be read as quickly alone as with others."""
        return self.layout.chunk_rows == 1 and not self.layout.compressed

    def read(self, start: int, stop: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Rows ``start <= row < stop``; into ``out`` where it is given, of their shape and type.

        Raises:
            ShardDamagedError: a file is missing, was cut or changed.
            StorageError: the storage cannot be read.
        """
        return self.begin_read(start, stop, out)()

    def begin_read(self, start: int, stop: int, out: npt.NDArray[Any] | None = None) -> Callable[[], npt.NDArray[Any]]:
        """``read`` in two steps, so that many can be under way together: what is returned waits for the rows."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}..{stop} of {len(self)} in {self._name}")
        rows = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype) if out is None else out
        if start == stop:
            return lambda: rows
        library()
        if self._copies is None:
            return self._begin_from(self._store, rows, start, stop)
        return self._begin_from_copies(rows, start, stop)

    def _begin_from(
        self, place: Location, rows: npt.NDArray[Any], start: int, stop: int
    ) -> Callable[[], npt.NDArray[Any]]:
        under_way = self._rows.begin(place, start, stop, rows)

        def finish() -> npt.NDArray[Any]:
            try:
                wait_for(under_way)
            except (ValueError, OSError) as error:
                self._explain(error, start, stop)
            return rows

        return finish

    def _begin_from_copies(self, rows: npt.NDArray[Any], start: int, stop: int) -> Callable[[], npt.NDArray[Any]]:
        """Copies that are there are read at once; others are fetched in the background meanwhile."""
        assert self._copies is not None
        copies, names = self._copies, self._files_of(start, stop)
        under_way = self._rows.begin(copies.folder, start, stop, rows) if copies.are_here(names) else None
        fetching = None if under_way else copies.begin(names)

        def finish() -> npt.NDArray[Any]:
            with self._copying():
                brought = fetching is None or fetching.result()
            if brought:
                try:
                    wait_for(under_way or self._rows.begin(copies.folder, start, stop, rows))
                except (ValueError, OSError):  # it was deleted to make room, or the disk has altered it
                    with self._copying():
                        brought = copies.bring_again(names)
                else:
                    return rows
            return self._begin_from(copies.folder if brought else self._store, rows, start, stop)()

        return finish

    def _explain(self, error: Exception, start: int, stop: int) -> NoReturn:
        """Tell damage from a storage that cannot be read."""
        self._sizes = None  # look again
        for name in self._files_of(start, stop):
            self._check_file(name)
        text = str(error)
        if not text.startswith(_DAMAGE):
            raise StorageError("cannot read", where=self._store / self._name, got=first_line(text)) from None
        known = {
            "Digest mismatch": "other bytes than were written (crc32c)",
            "is missing": "a chunk that was never written",
        }
        got = next((ours for theirs, ours in known.items() if theirs in text), first_line(text))
        self._damaged(self._store / self._name, got)

    def _read_metadata(self) -> Any:
        path, entry = self._store / self._name / "zarr.json", self._files.get(f"{self._name}/zarr.json")
        if entry is None:
            raise CacheError("no such array", where=self._store / self._name)
        if entry.size_bytes > _MOST_METADATA_BYTES:
            raise CacheError("not an array of this format", where=path, got=f"metadata of {entry.size_bytes} bytes")
        self._check_file(f"{self._name}/zarr.json")
        with self._copying():
            copied = self._copies.read(f"{self._name}/zarr.json") if self._copies else None
        data = self._read_file(path) if copied is None else copied
        if hashlib.sha256(data).hexdigest() != entry.digest:
            self._damaged(path, "other metadata than were written (sha256)")
        try:
            return parse(data)
        except ValueError as error:
            raise CacheError("not an array of this format", where=path, got=error) from None

    @contextmanager
    def _copying(self) -> Iterator[None]:
        """What cannot be copied, where it must be, is what cannot be read."""
        try:
            yield
        except LocationMissingError:
            self._damaged(self._store / self._name, "No such file or directory")
        except ValueError as error:
            self._damaged(self._store / self._name, error)

    def _files_of(self, start: int, stop: int) -> list[str]:
        numbers = range(start // self.layout.file_rows, -(-stop // self.layout.file_rows))
        return [f"{self._name}/{self.layout.file_name(number)}" for number in numbers]

    def _read_file(self, path: Location) -> bytes:
        try:
            return path.read_bytes()
        except LocationMissingError:
            self._damaged(path, "No such file or directory")

    def _check_file(self, name: str) -> None:
        """Make sure that a file is there, below the store also where links lead, and as long as it was."""
        path, expected = self._store / name, self._files[name].size_bytes
        if self._sizes is not None:
            size = self._sizes.get(name, -1)
        else:
            try:
                size = self._store.below(name).status().size_bytes
            except LocationMissingError:
                size = -1
        if size < 0:
            self._damaged(path, "No such file or directory")
        if size != expected:
            self._damaged(path, f"{size} bytes instead of {expected}")

    def _damaged(self, path: object, got: object) -> NoReturn:
        raise ShardDamagedError("the shard is damaged", where=path, got=got, remedy=_REMEDY) from None
