"""The files of one store while it is written: each counted, digested and, at the end, durable."""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from pea.cache.completion import FileEntry
from pea.storage.durable import fsync_path, make_folder
from pea.storage.failures import translated
from pea.storage.location import Location

_UPLOADS = 8
_MOST_WAITING = 4
"""Uploads under way while the next file is encoded: what memory is held for them is flat."""


class StoreFiles:
    """Takes the files of a store one by one."""

    def __init__(self, store: Location) -> None:
        self.store = store
        self.entries: dict[str, FileEntry] = {}
        """Path inside the store -> size and digest of what was put there."""
        self._uploads = None if store.is_local else ThreadPoolExecutor(_UPLOADS, thread_name_prefix="pea-upload")
        self._waiting: deque[Future[None]] = deque()
        self._folders: set[str] = set()

    def put(self, name: str, data: memoryview) -> None:
        """Store one file.

        Raises:
            DiskFullError: no room.
            StorageError: it cannot be written.
        """
        digest = hashlib.sha256(data).hexdigest() if name.endswith("zarr.json") else f"{zlib.crc32(data):08x}"
        self.entries[name] = FileEntry(len(data), digest)
        if self._uploads is None:
            self._write(name, data)
            return
        while len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._uploads.submit((self.store / name).write_bytes, bytes(data)))

    def _write(self, name: str, data: memoryview) -> None:
        path = self.store.local_path / name
        with translated("cannot write", path):
            if (folder := name.rpartition("/")[0]) not in self._folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._folders.add(folder)
            with path.open("xb", buffering=0) as file:
                while data:
                    data = data[file.write(data) :]

    def finish(self) -> None:
        """Wait until every file, and on a disk every folder down to the store, would survive a power cut."""
        while self._waiting:
            self._waiting.popleft().result()
        self.close()
        if self.store.is_local:
            with translated("cannot write", self.store):
                self.store.make_durable()
                make_folder(self.store.parent.local_path)
                fsync_path(self.store.parent.local_path)

    def close(self) -> None:
        """Give up what waits; harmless when repeated."""
        if self._uploads is not None:
            self._uploads.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()
