"""The folder of this machine in which copies of remote things are worked on, and what is fetched into it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pea.copies import note_copy
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import new_folder
from pea.storage.location import Location
from pea.storage.transfer import copy_file

VARIABLE = "PEA_WORK_DIR"
_SHOWN = 16
_FETCHED: dict[tuple[Location, Path], Path] = {}


def work_folder() -> Path:
    """Where copies of remote things are kept: ``PEA_WORK_DIR``, else ``~/.cache/pea-cache``. It may be deleted."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/pea-cache").expanduser().absolute()


def folder_for(kind: str, place: Location) -> Path:
    """The folder of this machine that belongs to a URL, with a name that tells which."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", place.name or place.bucket)[:60]
    return work_folder() / kind / f"{name}-{sha256_text(str(place))[:_SHOWN]}"


def fetched(place: Location) -> Path:
    """A file or folder of a store as a copy on this machine, fetched once for each content.

    The copy is kept under the URL and the versions (ETags) of its files, and appears whole or not at all. A process
    asks once. Where nothing is stored, a path where nothing is, so that whoever needs it says so.

    Raises:
        StorageError: the store or the disk cannot be read or written.
    """
    if place.is_local:
        return place.local_path
    found = _FETCHED.get((place, work_folder()))
    if found is None or not found.exists():
        found = _FETCHED[place, work_folder()] = _fetch(place)
        note_copy(found, place)
    return found


def _fetch(place: Location) -> Path:
    files = {entry.name: entry.status for entry in place.entries(recursive=True) if entry.status}
    single = not files and place.exists()
    known = {"": place.status()} if single else files
    if not known:
        return folder_for("nothing-at", place) / (place.name or place.bucket)
    versions = {name: [status.size_bytes, status.version] for name, status in known.items()}
    folder = folder_for("fetched", place) / sha256_text(canonical_json(versions))[:_SHOWN]
    target = folder / (place.name or place.bucket)
    if not folder.exists():
        with new_folder(folder, replace=False) as temporary:
            copy = Location.parse(temporary / target.name)
            for name in known:
                copy_file(place / name if name else place, copy.below(name) if name else copy)
    return target
