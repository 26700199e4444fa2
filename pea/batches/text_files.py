"""Text states of a frozen encoder kept on disk: computed on first use, mapped into memory by every later run.

A folder `<root>/<key>/` holds the states of one set of captions, in the order of their digests, as plain `.npy` files,
one for each part of the encoder's answer, and `states.json` with their checksums. The key is a digest of encoder and
captions, so that another encoder or corpus has another folder and nothing is ever stale. Of several processes that
want the same states at once, one encodes and the others wait for its folder; once there, it is never replaced.

Shapes: N captions.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from torch import Tensor

from pea.errors import CacheError, DiskFullError, LeaseHeldError, PeaError, is_disk_full
from pea.plurals import count_of
from pea.storage.durable import TEMPORARY, new_folder, remove_tree
from pea.storage.leases import take
from pea.storage.location import Location

_FORMAT = 2
_INDEX = "states.json"
_PIECE_BYTES = 16 << 20
_POLL_S = 0.5
"""Between two looks at whether another process has finished."""
Parts = tuple[Tensor | None, ...]
Digests = npt.NDArray[np.bytes_]


class TextFiles:
    """The stored states of one encoder and one set of captions."""

    def __init__(self, root: Path, encoder: str, digests: Digests) -> None:
        """`encoder`: digest of whatever decides its answers; `digests`: those of the captions, sorted, `[N]`."""
        self.num_texts = len(digests)
        key = hashlib.sha256(f"{_FORMAT}\0{encoder}\0".encode() + digests.tobytes())
        self.folder = root / key.hexdigest()[:32]

    def read(self) -> Parts | None:
        """The parts, float or int `[N, ...]`, mapped from disk; None where they have not been stored yet.

        Raises:
            CacheError: a file is missing, or is not what was written.
        """
        if not self._is_stored():
            return None
        try:
            index = json.loads((self.folder / _INDEX).read_text("utf-8"))
            return tuple(None if entry is None else self._map(entry) for entry in index["parts"])
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(error) from error

    def read_or_write(self, groups: Iterable[Parts]) -> Parts:
        """The parts, as `read` gives them; what is in no store yet is first stored from `groups`.

        `groups`: what the encoder gives for consecutive groups of the captions; gone through only where nobody else
        has stored it. While another process does, it is waited for; if that process dies, the work is done here.

        Raises:
            CacheError: a file is missing, or is not what was written, or cannot be written.
            DiskFullError: there is no room; nothing half-written is ever read.
        """
        while (stored := self.read()) is None:
            with self._as_own_errors():
                if not self._write_unless_busy(groups):
                    time.sleep(_POLL_S)
        return stored

    def _write_unless_busy(self, groups: Iterable[Parts]) -> bool:
        """Store the parts unless somebody else does or has done so. Returns whether they are stored."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lease = take(Location.parse(self.folder), "storing text states")
        except LeaseHeldError:
            return False
        with lease:
            for left in self.folder.parent.glob(f".{self.folder.name}{TEMPORARY}*"):  # by a process that ended
                remove_tree(left)
            if not self._is_stored():
                remove_tree(self.folder)  # without its index it is no store
                self._write(groups)
        return True

    def _write(self, groups: Iterable[Parts]) -> None:
        with new_folder(self.folder, replace=False) as temporary:
            entries = self._fill(temporary, groups)
            (temporary / _INDEX).write_text(json.dumps({"format": _FORMAT, "parts": entries}), "utf-8")

    def _is_stored(self) -> bool:
        return (self.folder / _INDEX).is_file()

    @contextmanager
    def _as_own_errors(self) -> Iterator[None]:
        """Turn what the system refuses into one line; those of the encoder stay what they are."""
        try:
            yield
        except PeaError:
            raise
        except OSError as error:
            kind = DiskFullError if is_disk_full(error) else CacheError
            need = "Make room" if is_disk_full(error) else "Make the folder writable"
            raise kind(
                "cannot store the text states",
                where=self.folder,
                got=error,
                remedy=f"{need}, or set train.keep_text_states to false.",
            ) from error

    def _fill(self, folder: Path, groups: Iterable[Parts]) -> list[dict[str, Any] | None]:
        """Written in sequence, not through a mapping: on a full disk that would be SIGBUS, and no error."""
        files: list[BinaryIO | None] = []
        num_texts = 0
        with ExitStack() as stack:
            for group in groups:
                if not files:
                    files = [self._create(folder / f"part-{i}.npy", part, stack) for i, part in enumerate(group)]
                num_texts += next(len(part) for part in group if part is not None)
                for file, part in zip(files, group, strict=True):
                    if file is not None and part is not None:
                        file.write(part.cpu().numpy().tobytes())
        assert num_texts == self.num_texts
        paths = [None if file is None else Path(file.name) for file in files]
        return [None if path is None else {"file": path.name, "crc32": _crc32(path)} for path in paths]

    def _create(self, path: Path, part: Tensor | None, stack: ExitStack) -> BinaryIO | None:
        """An `.npy` file as far as its header; the rows follow."""
        if part is None:
            return None
        rows = part[:0].cpu().numpy()
        file = stack.enter_context(path.open("wb"))
        shape = (self.num_texts, *rows.shape[1:])
        header = {"descr": dtype_to_descr(rows.dtype), "fortran_order": False, "shape": shape}
        write_array_header_1_0(file, header)
        return file

    def _map(self, entry: dict[str, Any]) -> Tensor:
        path = self.folder / entry["file"]
        if _crc32(path) != entry["crc32"]:
            raise ValueError(f"{path.name}: another checksum than was written")
        mapped = np.load(path, mmap_mode="c", allow_pickle=False)  # copy on write: torch wants writable memory
        if len(mapped) != self.num_texts:
            raise ValueError(f"{path.name}: {count_of(len(mapped), 'row')}, expected {self.num_texts}")
        return torch.from_numpy(mapped)

    def _damaged(self, error: Exception) -> CacheError:
        return CacheError(
            "the stored text states are damaged",
            where=self.folder,
            got=error,
            remedy="Remove this folder; the next run makes it again.",
        )


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum
