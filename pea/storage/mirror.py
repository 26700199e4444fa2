"""A folder of a store that is worked on as a copy on this machine: fetched before, published after and meanwhile.

The store counts. What it holds is fetched. What a killed command left here and did not publish stays, unless somebody
else has written to the store since, or files of the copy are gone: then it goes, so that nothing here is a mixture, and
nothing in the store is deleted because a work folder was cleaned. Files are published so that whoever reads the store
meets nothing that looks finished and is not: what completes a folder goes first when it changes, and comes last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pea.copies import note_copy
from pea.file_names import METRICS, MODEL_CONFIG, REPORT, SAVED_STATE
from pea.storage.digests import crc32_file
from pea.storage.durable import is_temporary, write_text
from pea.storage.location import Location
from pea.storage.status import Status
from pea.storage.transfer import copy_file

_COMPLETING = (MODEL_CONFIG, SAVED_STATE, METRICS, REPORT)
"""Files that make the folder they are in look finished."""
_GUARDED = ".safetensors"
"""Files that are not to be changed below a completing one."""


_LEASE = ".lease"


@dataclass(frozen=True)
class _Known:
    """A file that was the same here and in the store when it was last fetched or published."""

    size_bytes: int
    modified_ns: int
    crc32: str
    version: str
    """That the store gave."""


class Mirror:
    """A folder of a store and its copy on this machine."""

    def __init__(self, remote: Location, folder: Path, *, left_out: tuple[str, ...] = ()) -> None:
        """``left_out``: names in the folder that are read and written in the store itself, or not kept there."""
        self.remote, self.folder, self._left_out = remote, folder, left_out
        note_copy(folder, remote)
        self._ledger = folder.with_name(f"{folder.name}.ledger.json")

    def fetch(self) -> int:
        """Bring the copy to what the store holds; returns how many files were fetched.

        Raises:
            StorageError: the store or the disk cannot be read or written.
        """
        known, there = self._read_ledger(), self._in_store()
        versions = {name: status.version for name, status in there.items()}
        others_wrote = versions != {name: file.version for name, file in known.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        if not others_wrote and all((self.folder / name).is_file() for name in known):
            return 0
        wrong = [name for name, status in there.items() if not self._is_copied(name, status, known.get(name))]
        for name in sorted(self._here() - set(there), key=_completing_first):
            self._local(name).delete()
        for name in sorted(wrong, key=_completing_last):
            copy_file(self.remote.below(name), self._local(name))
            known[name] = self._known(name, there[name].version)
            self._write_ledger(known)
        self._write_ledger({name: known[name] for name in there})
        return len(wrong)

    def publish(self) -> int:
        """Bring the store to what the copy holds; returns how many files were sent.

        Raises:
            StorageError: the store or the disk cannot be read or written. Publishing again goes on where it broke off.
        """
        known = self._read_ledger()
        here = self._here()
        gone = set(known) - here
        changed = {name for name in here if not self._is_published(name, known.get(name))}
        touched = {name.rpartition("/")[0] for name in changed | gone if name.endswith(_GUARDED)}
        guards = {name for name in here | gone if _is_completing(name) and name.rpartition("/")[0] in touched}
        for name in sorted(gone | guards, key=_completing_first):
            self.remote.below(name).delete()
            if known.pop(name, None):
                self._write_ledger(known)
        for name in sorted(changed | (guards & here), key=_completing_last):
            before = self._known(name, "")
            copy_file(self._local(name), self.remote.below(name))
            version = self.remote.below(name).status().version
            known[name] = _Known(before.size_bytes, before.modified_ns, before.crc32, version)
            self._write_ledger(known)
        return len(changed)

    def _local(self, name: str) -> Location:
        return Location.parse(self.folder).below(name)

    def _in_store(self) -> Mapping[str, Status]:
        """Every mirrored file of the store; what is left out is not listed: it may be millions of names."""
        found = {}
        for entry in self.remote.entries():
            if entry.name in self._left_out or entry.name.endswith(_LEASE):
                continue
            if entry.status:
                found[entry.name] = entry.status
                continue
            below = (self.remote / entry.name).entries(recursive=True)
            found.update({f"{entry.name}/{each.name}": each.status for each in below if each.status})
        return found

    def _here(self) -> set[str]:
        """Every mirrored file of the copy."""
        if not self.folder.is_dir():
            return set()
        files = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return {
            path.as_posix()
            for path in files
            if path.parts[0] not in self._left_out and not any(map(_is_not_kept, path.parts))
        }

    def _is_copied(self, name: str, status: Status, known: _Known | None) -> bool:
        return known is not None and known.version == status.version and self._is_published(name, known)

    def _is_published(self, name: str, known: _Known | None) -> bool:
        """Whether a file here is the one that was last the same in the store."""
        if known is None or not (path := self.folder / name).is_file():
            return False
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) == (known.size_bytes, known.modified_ns):
            return True
        return found.st_size == known.size_bytes and crc32_file(path) == known.crc32

    def _known(self, name: str, version: str) -> _Known:
        path = self.folder / name
        found = path.stat()
        return _Known(found.st_size, found.st_mtime_ns, crc32_file(path), version)

    def _read_ledger(self) -> dict[str, _Known]:
        try:
            raw: Any = json.loads(self._ledger.read_text("utf-8"))
            return {str(name): _Known(*map(_typed, (int, int, str, str), each)) for name, each in raw.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write_ledger(self, known: Mapping[str, _Known]) -> None:
        rows = {name: [each.size_bytes, each.modified_ns, each.crc32, each.version] for name, each in known.items()}
        write_text(self._ledger, json.dumps(rows, indent=0))


def _typed(kind: Callable[[Any], Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError("not a ledger")
    return value


def _is_not_kept(name: str) -> bool:
    return is_temporary(name) or name.endswith(_LEASE)


def _is_completing(name: str) -> bool:
    return name.rpartition("/")[2] in _COMPLETING


def _completing_last(name: str) -> tuple[bool, str]:
    return _is_completing(name), name


def _completing_first(name: str) -> tuple[bool, str]:
    return not _is_completing(name), name
