"""What each tar of a corpus is: read in parallel before the manifest is made, and remembered.

One pass over a tar finds its digest, proves that it is whole, and counts its samples. What was found is remembered with
the version that its storage gives (time of change and inode on a disk, ETag in a bucket), and holds as long as that
stays the same. On a cluster the workers read the tars; what they cannot read, the driver reads itself.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from pea.corpus.damaged_tars import as_one_error
from pea.corpus.places import Tar
from pea.corpus.tars import TarContents, TarIdentity, scan_tar
from pea.errors import CorpusError, PeaError
from pea.plurals import count_of
from pea.storage.durable import write_text
from pea.storage.status import Status
from stages.cluster.session import RaySession
from stages.command.progress import StageProgress

FILE_NAME = "tar_facts.json"
_MOST_THREADS = 8
_TASKS_PER_NODE = 2
_SAVE_EVERY_S = 10.0
_POLL_S = 1.0
_SETTLED_S = 2.0
"""A file that changed less than this before it was read may change again without showing it."""
STRAGGLER_PATIENCE_S = 60.0
"""When nothing else is left to read, the driver reads what a worker does not answer about for so long."""

Answer = TarContents | CorpusError


@dataclass(frozen=True)
class _Known:
    """What is remembered of one tar."""

    version: str
    size_bytes: int
    sha256: str
    num_samples: int


class TarFacts:
    """What is known of tars, remembered in one folder."""

    def __init__(self, folder: Path, image_extensions: Sequence[str]) -> None:
        """``image_extensions``: those of files that are images."""
        self._path, self._extensions = folder / FILE_NAME, tuple(image_extensions)
        self._known = _read(self._path)
        self._statuses: dict[Tar, Status] = {}
        self._saved = time.monotonic()

    def missing(self, tars: Sequence[Tar]) -> list[Tar]:
        """Those of which nothing is known, or nothing that surely holds any more.

        Raises:
            StorageError: a tar cannot be looked at.
        """
        self._statuses |= {tar: tar.location.status() for tar in tars if tar not in self._statuses}
        return [tar for tar in tars if self._remembered(tar) is None]

    def read(self, tars: Sequence[Tar], session: RaySession, progress: StageProgress) -> None:
        """Read some tars whole; on the cluster's workers if there is one, else in threads.

        Raises:
            CorpusError: tars cannot be read or are damaged; each is named.
            CacheError: Ray is gone.
        """
        total_bytes, num_bytes = sum(self._statuses[tar].size_bytes for tar in tars), 0
        read, damaged = self._on_workers if session.has_cluster else self._in_threads, []
        try:
            for number, (tar, found) in enumerate(read(tars, session), 1):
                if isinstance(found, CorpusError):
                    damaged.append(found)
                else:
                    self._note(tar, found)
                num_bytes += self._statuses[tar].size_bytes
                progress.update(num_bytes, total_bytes, num_bytes // 1_000_000, f"{number:,} of {len(tars):,} tars")
                if time.monotonic() - self._saved > _SAVE_EVERY_S:
                    self.save()
        finally:
            self.save()
        if damaged:
            raise as_one_error(damaged)

    def identity(self, tar: Tar) -> TarIdentity:
        """Name, size and digest of a tar that was read, or is remembered."""
        known = self._known[_key(tar)]
        return TarIdentity(tar.name, known.size_bytes, known.sha256)

    def check_samples(self, tars: Sequence[Tar]) -> list[str]:
        """Names of the tars without a sample.

        Raises:
            CorpusError: there is no sample at all.
        """
        if not tars:
            remedy = "Name other tars in corpora.*.tars; or delete the cache's folder, where nothing of it is to stay."
            raise CorpusError("no tar is left", got="all that there are, retired", remedy=remedy)
        empty = [tar.name for tar in tars if not self._known[_key(tar)].num_samples]
        if len(empty) == len(tars):
            raise CorpusError(
                "the corpus has no samples",
                got=f"{count_of(len(tars), 'tar')}, none with an image or a json in it",
                remedy="Correct corpora.*.tars; the files of a sample are called KEY.jpg (or png, webp) and KEY.json.",
            )
        return empty

    def save(self) -> None:
        """Write what is known and will surely hold, for the next run."""
        now = time.time()
        young = {_key(tar) for tar, status in self._statuses.items() if now - status.modified_s < _SETTLED_S}
        settled = {name: vars(known) for name, known in sorted(self._known.items()) if name not in young}
        write_text(self._path, json.dumps(settled, indent=0))
        self._saved = time.monotonic()

    def _note(self, tar: Tar, found: TarContents) -> None:
        assert found.identity is not None
        version = self._statuses[tar].version
        self._known[_key(tar)] = _Known(version, found.identity.size_bytes, found.identity.sha256, found.num_samples)

    def _remembered(self, tar: Tar) -> _Known | None:
        known = self._known.get(_key(tar))
        return known if known and known.version == self._statuses[tar].version else None

    def _in_threads(self, tars: Sequence[Tar], _session: RaySession) -> Iterator[tuple[Tar, Answer]]:
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="pea-tars") as pool:
            try:
                yield from zip(tars, pool.map(lambda tar: scan(tar, self._extensions), tars), strict=True)
            finally:
                pool.shutdown(cancel_futures=True)

    def _on_workers(self, tars: Sequence[Tar], session: RaySession) -> Iterator[tuple[Tar, Answer]]:
        session.open()
        waiting, reading, heard = deque(tars), dict[Any, Tar](), time.monotonic()
        most = _TASKS_PER_NODE
        while waiting or reading:
            most = max(most, _TASKS_PER_NODE * len(session.nodes() or ()))
            while waiting and len(reading) < most:
                tar = waiting.popleft()
                reading[_scan.remote(Tar(tar.name, tar.location.resolve()), self._extensions)] = tar
            for answer in ray.wait(list(reading), timeout=_POLL_S)[0]:
                heard = time.monotonic()
                tar = reading.pop(answer)
                yield tar, self._taken(answer, tar)
            if not waiting and time.monotonic() - heard > STRAGGLER_PATIENCE_S:
                for answer, tar in reading.items():
                    ray.cancel(answer, force=True)
                    yield tar, scan(tar, self._extensions)
                return

    def _taken(self, answer: Any, tar: Tar) -> Answer:
        """What a worker found; where it found the tar bad, or nothing, the driver looks itself."""
        try:
            found: Answer = ray.get(answer)
        except (RayError, PeaError, OSError):
            return scan(tar, self._extensions)
        return scan(tar, self._extensions) if isinstance(found, CorpusError) else found


def scan(tar: Tar, image_extensions: Sequence[str]) -> Answer:
    """What one pass over a tar finds, or why it is refused."""
    try:
        return scan_tar(tar, image_extensions, digest=True)
    except CorpusError as error:
        return error


@ray.remote(num_cpus=0, max_retries=1, scheduling_strategy="SPREAD")
def _scan(tar: Tar, image_extensions: Sequence[str]) -> Answer:
    return scan(tar, image_extensions)


def _key(tar: Tar) -> str:
    return str(tar.location.resolve())


def _read(path: Path) -> dict[str, _Known]:
    """What was remembered; nothing, if that cannot be read: it is only work that is saved."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).items()
        known = {tar: _Known(**entry) for tar, entry in entries}
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return {}
    types = (str, int, str, int)
    return {tar: each for tar, each in known.items() if tuple(map(type, vars(each).values())) == types}
