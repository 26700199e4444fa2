"""What makes each tar of a corpus the same: read in parallel before the manifest is made, and remembered.

A digest is remembered with the file's size, time of change and inode, and holds as long as these stay the same. On a
cluster the workers read the tars; what they cannot read, the driver reads itself.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from pea.corpus.tars import TarIdentity, tar_identity, tar_name
from pea.errors import PeaError
from pea.storage.durable import write_text
from stages.cluster.session import RaySession
from stages.command.progress import StageProgress

FILE_NAME = "tar_digests.json"
_MOST_THREADS = 8
_TASKS_PER_NODE = 2
_SAVE_EVERY_S = 10.0
_POLL_S = 1.0
_SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without showing it."""
STRAGGLER_PATIENCE_S = 60.0
"""When nothing else is left to read, the driver reads what a worker does not answer about for so long."""

Stamp = tuple[int, int, int]
"""Size in bytes, time of change in ns, inode."""


class TarDigests:
    """The digests that are remembered in one folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._known = _read(self._path)
        self._found: dict[Path, TarIdentity] = {}
        """What this process has read."""
        self._saved = time.monotonic()

    def missing(self, tars: Sequence[Path]) -> list[Path]:
        """Those whose digest is not known, or may not hold any more."""
        return [tar for tar in tars if self._remembered(tar) is None]

    def read(self, tars: Sequence[Path], session: RaySession, progress: StageProgress) -> None:
        """Learn the digests of some tars; on the cluster's workers if there is one, else in threads.

        Raises:
            CorpusError: a tar cannot be read.
            CacheError: Ray is gone.
        """
        stamps = {tar: _stamp(tar) for tar in tars}
        total_bytes = sum(size_bytes for size_bytes, _, _ in stamps.values())
        num_bytes, began_ns = 0, time.time_ns()
        read = _on_workers(tars, session) if session.has_cluster else _in_threads(tars)
        try:
            for number, (tar, found) in enumerate(read, 1):
                self._found[tar] = found
                if stamps[tar] == _stamp(tar) and began_ns - stamps[tar][1] > _SETTLED_NS:
                    self._known[str(tar.resolve())] = [*stamps[tar], found.sha256]
                num_bytes += found.size_bytes
                done = f"{number:,} of {len(tars):,} tars"
                progress.update(num_bytes, total_bytes, num_bytes // 1_000_000, done)
                if time.monotonic() - self._saved > _SAVE_EVERY_S:
                    self.save()
        finally:
            self.save()

    def identity(self, tar: Path) -> TarIdentity:
        """Name, size and digest of a tar, read now if that has not been done.

        Raises:
            CorpusError: it cannot be read.
        """
        if tar in self._found:
            return self._found[tar]
        digest = self._remembered(tar)
        return tar_identity(tar) if digest is None else TarIdentity(tar_name(tar), tar.stat().st_size, digest)

    def save(self) -> None:
        """Write what is known, for the next run."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, json.dumps(self._known, indent=0, sort_keys=True))
        self._saved = time.monotonic()

    def _remembered(self, tar: Path) -> str | None:
        entry = self._known.get(str(tar.resolve()))
        return str(entry[-1]) if entry and tar.exists() and tuple(entry[:-1]) == _stamp(tar) else None


def _in_threads(tars: Sequence[Path]) -> Iterator[tuple[Path, TarIdentity]]:
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="pea-digest") as pool:
        try:
            yield from zip(tars, pool.map(tar_identity, tars), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


@ray.remote(num_cpus=0, max_retries=1, scheduling_strategy="SPREAD")
def _identify(tar: str) -> TarIdentity:
    return tar_identity(tar)


def _on_workers(tars: Sequence[Path], session: RaySession) -> Iterator[tuple[Path, TarIdentity]]:
    session.open()
    waiting, reading, heard = deque(tars), dict[Any, Path](), time.monotonic()
    most = _TASKS_PER_NODE
    while waiting or reading:
        most = max(most, _TASKS_PER_NODE * len(session.nodes() or ()))
        while waiting and len(reading) < most:
            tar = waiting.popleft()
            reading[_identify.remote(str(tar.resolve()))] = tar
        for answer in ray.wait(list(reading), timeout=_POLL_S)[0]:
            heard = time.monotonic()
            tar = reading.pop(answer)
            try:
                yield tar, ray.get(answer)
            except (RayError, PeaError, OSError):
                yield tar, tar_identity(tar)
        if not waiting and time.monotonic() - heard > STRAGGLER_PATIENCE_S:
            for answer, tar in reading.items():
                ray.cancel(answer, force=True)
                yield tar, tar_identity(tar)
            return


def _read(path: Path) -> dict[str, list[Any]]:
    """What was remembered; nothing, if that cannot be read: it is only work that is saved."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {tar: entry for tar, entry in known.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 4:
        return False
    *stamp, digest = entry
    return all(type(number) is int for number in stamp) and isinstance(digest, str) and len(digest) == 64


def _stamp(tar: Path) -> Stamp:
    status = tar.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
