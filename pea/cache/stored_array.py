"""Read rows of a stored array with tensorstore, verified: never a fill value in place of what is missing.

tensorstore checks the crc32c of every chunk it uses and refuses one that is not there. What it cannot know comes from
the completion record: which files must be there, how long they are, and the digest of the metadata.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from pea.cache.array_layout import check_files, read_layout
from pea.cache.completion import FileEntry
from pea.cache.strict_json import parse
from pea.errors import CacheError, LocationMissingError, ShardDamagedError, StorageError
from pea.storage.location import Location

_REMEDY = "Run `pea inspect check --repair`, then `pea cache` again."
_MOST_METADATA_BYTES = 4 << 20
_DAMAGE = ("DATA_LOSS", "NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "OUT_OF_RANGE")
"""How tensorstore's messages begin when bytes were read and are wrong, or are not there."""
_reading_pids: set[int] = set()


class StoredArray:
    """One array of a finished store."""

    def __init__(
        self,
        store: Location,
        name: str,
        files: Mapping[str, FileEntry],
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Check the array's metadata and that its files are there.

        ``files``: what the completion record lists; ``sizes``: what is there, where a listing was made already.

        Raises:
            ShardDamagedError: a file is missing, of another size, or the metadata was changed.
            CacheError: the array is not laid out as this format version says.
            StorageError: the storage cannot be read.
        """
        self._store, self._name, self._files, self._sizes = store, name, files, sizes
        metadata = self._read_metadata()
        try:
            self.layout = read_layout(metadata)
        except ValueError as error:
            raise CacheError("not an array of this format", where=store / name, got=error) from None
        if problem := check_files(self.layout, name, files):
            self._damaged(store / name, problem)
        for number in range(self.layout.num_files):
            self._check_file(f"{name}/{self.layout.file_name(number)}")
        self._metadata = metadata
        self._opened: Any = None

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
        tensorstore = _tensorstore()
        if self._opened is None:
            self._opened = self._open(tensorstore)
        source = self._opened[start:stop].translate_to[0]
        # To where the rows are wanted: what is not copied costs nothing.
        under_way = tensorstore.array(rows, context=_context()).write(source)

        def finish() -> npt.NDArray[Any]:
            try:
                self._wait(under_way)
            except (ValueError, OSError) as error:
                self._explain(error, start, stop)
            return rows

        return finish

    @staticmethod
    def _wait(under_way: Any) -> None:
        under_way.result()

    def _open(self, tensorstore: Any) -> Any:
        """The array in tensorstore; metadata are those that were checked, and are not read again."""
        spec = {
            "driver": "zarr3",
            "kvstore": (self._store / self._name).tensorstore_spec(),
            "metadata": self._metadata,
            "fill_missing_data_reads": False,
            "recheck_cached_metadata": False,
            "recheck_cached_data": False,
        }
        try:
            return tensorstore.open(spec, open=True, assume_metadata=True, read=True, context=_context()).result()
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            where = self._store / self._name
            raise CacheError("not an array of this format", where=where, got=_first_line(str(error))) from None

    def _explain(self, error: Exception, start: int, stop: int) -> NoReturn:
        """Tell damage from a storage that cannot be read."""
        layout = self.layout
        self._sizes = None  # look again
        for number in range(start // layout.file_rows, -(-stop // layout.file_rows)):
            self._check_file(f"{self._name}/{layout.file_name(number)}")
        text = str(error)
        if not text.startswith(_DAMAGE):
            raise StorageError("cannot read", where=self._store / self._name, got=_first_line(text)) from None
        known = {
            "Digest mismatch": "other bytes than were written (crc32c)",
            "is missing": "a chunk that was never written",
        }
        got = next((ours for theirs, ours in known.items() if theirs in text), _first_line(text))
        self._damaged(self._store / self._name, got)

    def _read_metadata(self) -> Any:
        path, entry = self._store / self._name / "zarr.json", self._files.get(f"{self._name}/zarr.json")
        if entry is None:
            raise CacheError("no such array", where=self._store / self._name)
        if entry.size_bytes > _MOST_METADATA_BYTES:
            raise CacheError("not an array of this format", where=path, got=f"metadata of {entry.size_bytes} bytes")
        self._check_file(f"{self._name}/zarr.json")
        data = self._read_file(path)
        if hashlib.sha256(data).hexdigest() != entry.digest:
            self._damaged(path, "other metadata than were written (sha256)")
        try:
            return parse(data)
        except ValueError as error:
            raise CacheError("not an array of this format", where=path, got=error) from None

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


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:300]


def _tensorstore() -> Any:
    """The library, unless this is a fork of a process that used it: there its threads are gone, and it aborts.

    Raises:
        CacheError: so it is.
    """
    if _reading_pids and os.getpid() not in _reading_pids:
        raise CacheError(
            "a forked process cannot read the cache: the threads of its parent's reader are not in it",
            where=f"process {os.getpid()}",
            remedy='Start workers with "spawn" or "forkserver", or fork before the first read.',
        )
    import tensorstore

    _reading_pids.add(os.getpid())
    return tensorstore


@cache
def _context() -> Any:
    """One for all arrays: its caches are empty, so that memory stays flat and what is read is what is stored now."""
    return _tensorstore().Context({"cache_pool": {"total_bytes_limit": 0}})
