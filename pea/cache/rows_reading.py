"""Rows read with tensorstore, of an array whose metadata were checked already, from wherever its files are."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy.typing as npt

from pea.errors import CacheError
from pea.storage.location import Location

_reading_pids: set[int] = set()


class RowsReading:
    """One array, opened where its files are; the same files may be in several places."""

    def __init__(self, name: str, metadata: Any) -> None:
        """``metadata``: its ``zarr.json``, which is not read again."""
        self._name, self._metadata = name, metadata
        self._opened: dict[Location, Any] = {}

    def begin(self, store: Location, start: int, stop: int, out: npt.NDArray[Any]) -> Any:
        """Begin to read rows to where they are wanted: what is not copied costs nothing. ``wait_for`` ends it.

        Raises:
            CacheError: tensorstore does not take the metadata.
        """
        if store not in self._opened:
            self._opened[store] = self._open(store / self._name)
        source = self._opened[store][start:stop].translate_to[0]
        return library().array(out, context=_context()).write(source)

    def _open(self, place: Location) -> Any:
        spec = {
            "driver": "zarr3",
            "kvstore": place.tensorstore_spec(),
            "metadata": self._metadata,
            "fill_missing_data_reads": False,
            "recheck_cached_metadata": False,
            "recheck_cached_data": False,
        }
        try:
            return library().open(spec, open=True, assume_metadata=True, read=True, context=_context()).result()
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise CacheError("not an array of this format", where=place, got=first_line(str(error))) from None


def wait_for(under_way: Any) -> None:
    """Wait until rows are there.

    Raises:
        ValueError, OSError: as tensorstore says what is wrong.
    """
    under_way.result()


def first_line(text: str) -> str:
    """What is shown of a message of tensorstore's."""
    return text.partition("\n")[0][:300]


def library() -> Any:
    """tensorstore, unless this is a fork of a process that used it: there its threads are gone, and it aborts.

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
    return library().Context({"cache_pool": {"total_bytes_limit": 0}})
