"""The control file that the interposing library and the walk share: settings, the counter, and the log."""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

HEADER_BYTES = 8192
_FOLDER_OFFSET = 4096
_SETTINGS = struct.Struct("<16Q")
_RECORD = struct.Struct("<IIQqqqqIIII")
_LOG_BYTES = 256 << 20  # sparse: only what is written takes room
NOT_DONE = -1

Kind = Literal["kill", "fail", "tear", "short", "power"]
Cut = Literal["lost", "empty", "mixed"]


class Op(IntEnum):
    """Storage operations; the numbers are those of interpose.h."""

    OPEN = 0  # for writing
    WRITE = 1
    TRUNCATE = 2
    ALLOCATE = 3
    COPY = 4
    SYNC = 5
    RENAME = 6
    LINK = 7
    SYMLINK = 8
    UNLINK = 9
    MKDIR = 10
    RMDIR = 11
    MAP = 12
    FLUSH = 13
    OPEN_READ = 16
    READ = 17
    LIST = 18


WRITES = frozenset(op for op in Op if op < Op.OPEN_READ)
READS = frozenset(Op) - WRITES
_NAMES = frozenset({Op.OPEN, Op.RENAME, Op.LINK, Op.SYMLINK, Op.UNLINK, Op.MKDIR, Op.RMDIR, Op.TRUNCATE})
_GROWING = frozenset(
    {Op.OPEN, Op.WRITE, Op.ALLOCATE, Op.COPY, Op.SYNC, Op.RENAME, Op.LINK, Op.SYMLINK, Op.MKDIR, Op.MAP}
)
FAILING: dict[str, frozenset[Op]] = {
    "ENOSPC": _GROWING,
    "EDQUOT": _GROWING,
    "EIO": WRITES,
    "EACCES": _NAMES,
    "EROFS": _NAMES,
}
"""Error -> the operations that a system answers with it."""
TEARABLE = frozenset({Op.WRITE, Op.COPY})


@dataclass(frozen=True)
class Fault:
    """What happens at one operation."""

    kind: Kind
    """``kill``: the command ends before it. ``fail``: it gives an error. ``tear``: a part is written, then the command
    ends. ``short``: a part is written, and the command is told so. ``power``: the command ends before it, and what was
    not made durable is lost."""
    at: int
    """The number of the operation, from 1."""
    error: str = "EIO"
    """Of ``fail``: the name of the error."""
    lasting: bool = False
    """Of ``fail``: every later operation that can meet this error fails too, as on a full disk."""
    part: int = 128
    """Of ``tear`` and ``short``: 256ths of the bytes that are written."""
    cut: Cut = "lost"
    """Of ``power``: see ``Disk.after_power_cut``."""
    reads: bool = False
    """Of ``fail``: reading is counted, in place of writing."""

    def __str__(self) -> str:
        details = {"fail": f" {self.error}{'+' if self.lasting else ''}", "power": f" {self.cut}"}
        return f"{self.kind}{details.get(self.kind, '')} at {self.at}"

    @property
    def counted(self) -> frozenset[Op]:
        """The operations that are counted."""
        return READS if self.reads else WRITES

    def can_hit(self, op: Op) -> bool:
        """Whether a system does this to such an operation."""
        if self.kind == "fail":
            return op in READS if self.reads else op in FAILING[self.error]
        return self.kind not in ("tear", "short") or op in TEARABLE


@dataclass(frozen=True)
class Operation:
    """One logged operation."""

    op: Op
    number: int
    """From 1; 0: it was not counted."""
    path: str
    other: str
    """The second name of a rename or link, the target of a symbolic link."""
    result: int
    error: int
    """Error number; 0: none; -1: the command was ended before it, or in the middle of it."""
    offset: int
    value: int
    """Flags of an open or rename, length of a truncation or allocation, 1: everything was made durable."""
    process: int
    data: bytes

    @property
    def done(self) -> bool:
        """Whether it had an effect; a torn write had some."""
        return self.error == 0 or (self.error == NOT_DONE and self.result >= 0)

    def below(self, folder: Path) -> Operation:
        """The same with paths relative to a folder."""
        root = str(folder.resolve())
        path, other = ("." if name == root else name.removeprefix(f"{root}/") for name in (self.path, self.other))
        return replace(self, path=path, other=other)

    def __str__(self) -> str:
        names = f"{self.path} -> {self.other}" if self.other else self.path
        error = f" ({errno.errorcode.get(self.error, 'ended here')})" if self.error else ""
        return f"{self.op.name.lower()} {names}{error}"


class ControlFile:
    """Settings for one run of a command, and what it did."""

    def __init__(self, path: Path, folder: Path, fault: Fault | None = None, *, skip_sync: bool = True) -> None:
        """``skip_sync``: fsync is counted and logged but not done: power is only cut in a model, and it takes time."""
        self.path, self.fault = path, fault
        counted = fault.counted if fault else WRITES
        settings = {"kill": 1, "power": 1, "fail": 2, "tear": 3, "short": 4}
        values = [0] * 16
        values[2] = fault.at if fault else 0
        values[3] = settings[fault.kind] if fault else 0
        values[4] = getattr(errno, fault.error) if fault else 0
        values[5] = fault is not None and fault.lasting
        values[6] = _mask(READS if fault and fault.reads else FAILING[fault.error]) if fault else 0
        values[7] = _mask(counted)
        values[8] = fault.part if fault else 0
        values[9], values[10], values[12] = True, skip_sync, _LOG_BYTES
        with path.open("xb") as file:
            file.truncate(HEADER_BYTES + _LOG_BYTES)
            file.write(_SETTINGS.pack(*map(int, values)))
            file.seek(_FOLDER_OFFSET)
            file.write(str(folder.resolve()).encode() + b"\0")

    @property
    def count(self) -> int:
        """How many operations were counted."""
        return self._values()[1]

    @property
    def sees_raw_calls(self) -> bool:
        """Whether system calls that go around libc were seen."""
        return bool(self._values()[15])

    @property
    def hit(self) -> Operation | None:
        """The operation that the fault struck."""
        number = self._values()[14]
        return next((each for each in self.operations() if number and each.number == number), None)

    def operations(self) -> Iterator[Operation]:
        """The log, in the order in which things happened.

        Raises:
            OverflowError: it did not fit.
        """
        values = self._values()
        if values[13]:
            raise OverflowError(f"the log of {self.path} is full")
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            place, end = HEADER_BYTES, HEADER_BYTES + values[11]
            while place < end:
                yield _operation(view, place)
                place += int.from_bytes(view[place : place + 4], "little")

    def _values(self) -> tuple[Any, ...]:
        with self.path.open("rb") as file:
            return _SETTINGS.unpack(file.read(_SETTINGS.size))


def _mask(ops: frozenset[Op]) -> int:
    return sum(1 << op for op in ops)


def _operation(view: mmap.mmap, place: int) -> Operation:
    _, op, number, result, error, offset, value, process, *sizes = _RECORD.unpack_from(view, place)
    texts, start = [], place + _RECORD.size
    for size in sizes:
        texts.append(view[start : start + size])
        start += size
    path, other = (text.decode(errors="surrogateescape") for text in texts[:2])
    return Operation(Op(op), number, path, other, result, error, offset, value, process, texts[2])
