"""What a folder or bucket can be used for, found out by using it; nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pea.errors import LocationExistsError, PeaError, StorageError
from pea.storage.location import Location

NETWORK = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "pvfs2",
        "orangefs",
        "glusterfs",
    )
    + ("9p", "ocfs2", "gfs2", "virtiofs")
)
"""Kinds of file systems that several machines see."""
_CREATORS = 8
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass
class Probe:
    """What was found out."""

    tried: Location
    """Where: the place itself, or the nearest folder above it that is there."""
    file_system: str | None = None
    """As the system calls it (``ext4``, ``nfs4``, ``fuse.sshfs``); None in a bucket, or where it is not known."""
    free_bytes: int | None = None
    """Room for this user; None in a bucket."""
    free_files: int | None = None
    """How many more files fit; None in a bucket, and where the file system has no such limit."""
    refused: dict[str, str] = field(default_factory=dict)
    """What did not work -> why, in one line: ``write``, ``create if absent``, ``exclusive open``, ``replace``,
    ``list``, ``delete``. Where a ``write`` fails, nothing else is tried."""
    clock_ahead_s: float | None = None
    """How far the clock that gives files their times is ahead of this machine's."""

    @property
    def is_shared(self) -> bool:
        """Whether other machines may see it: a bucket, or a network file system."""
        kind = self.file_system or ""
        return not self.tried.is_local or kind in NETWORK or kind.startswith("fuse.")


def probe(place: Location) -> Probe:
    """Write, read, create if absent, replace, list and delete a small file there, or as near above as a folder is.

    Raises nothing: what does not work is in ``refused``.
    """
    found = Probe(_nearest_there(place))
    if found.tried.is_local and not os.path.isdir(found.tried):  # Path.is_dir raises where it may not look
        found.refused["write"] = f"{found.tried} is no folder"
        return found
    if found.tried.is_local:
        path = found.tried.local_path
        found.file_system = file_system(path)
        with suppress(OSError):
            found.free_bytes = shutil.disk_usage(path).free
            status = os.statvfs(path)
            found.free_files = status.f_favail if status.f_files else None
    file = found.tried / f".pea-probe-{uuid.uuid4().hex[:12]}"
    try:
        _try_out(file, found)
    finally:
        for name in (file, file.with_name(f"{file.name}-new"), file.with_name(f"{file.name}-open")):
            with suppress(PeaError, OSError):
                name.delete()
    return found


def _try_out(file: Location, found: Probe) -> None:
    steps: dict[str, Callable[[], object]] = {
        "write": lambda: _write(file, found),
        "create if absent": lambda: _create_at_once(file.with_name(f"{file.name}-new")),
        "exclusive open": lambda: _open_exclusively(file.with_name(f"{file.name}-open")),
        "replace": lambda: _replace(file),
        "list": lambda: _list(file),
        "delete": lambda: _delete(file),
    }
    for name, action in steps.items():
        try:
            action()
        except (PeaError, OSError) as error:
            found.refused[name] = " ".join(str(error).split())
            if name == "write":
                return


def _write(file: Location, found: Probe) -> None:
    before = time.time()
    file.write_bytes(b"one")
    after = time.time()
    _expect(file, b"one")
    found.clock_ahead_s = file.status().modified_s - (before + after) / 2


def _replace(file: Location) -> None:
    file.write_bytes(b"another")
    _expect(file, b"another")


def _list(file: Location) -> None:
    if all(each.name != file.name for each in file.parent.list()):
        raise StorageError("a file that was just written is not listed", where=file)


def _delete(file: Location) -> None:
    file.delete()
    if file.exists():
        raise StorageError("a file that was just deleted is still there", where=file)


def _create_at_once(file: Location) -> None:
    """Several create the same file at the same time: one must succeed, and its content must stay.

    Raises:
        StorageError: another number did, or the content is another's.
    """

    def create(number: int) -> bool:
        try:
            file.create_bytes(f"{number}".encode())
        except LocationExistsError:
            return False
        return True

    with ThreadPoolExecutor(_CREATORS, thread_name_prefix="pea-probe") as pool:
        winners = [number for number, won in enumerate(pool.map(create, range(_CREATORS))) if won]
    if len(winners) != 1:
        raise StorageError("files are not created only if absent", where=file, expected="1 creator", got=len(winners))
    _expect(file, f"{winners[0]}".encode())
    if create(_CREATORS):
        raise StorageError("a file that is there was created again", where=file)


def _open_exclusively(file: Location) -> None:
    if not file.is_local:
        return
    path = file.local_path
    for attempt in range(2):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            if attempt == 1:
                return
            raise
    raise StorageError("O_EXCL is not honoured", where=path)


def _expect(file: Location, content: bytes) -> None:
    got = file.read_bytes()
    if got != content:
        raise StorageError("other bytes than were written", where=file, expected=content, got=got[:20])


def _nearest_there(place: Location) -> Location:
    if not place.is_local:
        return place
    path = place.local_path.absolute()
    return Location.parse(next((each for each in (path, *path.parents) if os.path.lexists(each)), Path("/")))


def file_system(path: Path) -> str | None:
    """Kind of the file system that a path lies on; None where the system does not say."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place, found, depth = path.resolve(), None, 0
    for line in mounts:  # of several mounts at one point the last counts
        before, _, after = line.partition(" - ")
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4]))
        if place.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = after.split(" ")[0], len(point.parts)
    return found
