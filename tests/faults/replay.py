"""What a command that ends at an operation leaves, by the log of one that was not disturbed.

No process has to be ended for it: the interposing library does one operation after another, so what is there before the
n-th is what all before it made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults.control import NOT_DONE, Fault, Kind, Operation
from tests.faults.disk import Disk
from tests.faults.tree import Tree

REPLAYED: frozenset[Kind] = frozenset({"kill", "tear", "power"})
"""The kinds that end the command, which then has no say in what comes of it."""


def left_by(fault: Fault, start: Path, folder: Path, log: Sequence[Operation]) -> tuple[Tree, Operation | None]:
    """What lies there, and what was struck (None: nothing; the command was over).

    ``start``: what there was before; ``folder``: its path in the log, which is whole and in order.
    """
    assert fault.kind in REPLAYED, fault
    done, struck = _until(fault, log)
    disk = Disk(start, folder)
    disk.replay(done if struck is None else [*done, struck])
    tree = disk.after_power_cut(fault.cut, seed=fault.at) if fault.kind == "power" else disk.now()
    return tree, struck and struck.below(folder)


def digest(tree: Tree) -> str:
    """Of all names and all that is in them."""
    found = hashlib.sha256()
    for name, content in sorted(tree.items()):
        data = content.encode() if isinstance(content, str) else content or b""
        found.update(f"{type(content).__name__} {len(name)} {len(data)} {name}".encode(errors="surrogateescape") + data)
    return found.hexdigest()


def _until(fault: Fault, log: Sequence[Operation]) -> tuple[Sequence[Operation], Operation | None]:
    index = next((index for index, each in enumerate(log) if each.number == fault.at), None)
    if index is None:
        return log, None
    struck = log[index]
    if fault.kind == "tear":
        data = struck.data[: _torn_bytes(len(struck.data), fault.part)]
        return log[:index], replace(struck, data=data, result=len(data), error=NOT_DONE)
    return log[:index], replace(struck, data=b"", result=NOT_DONE, error=NOT_DONE)


def _torn_bytes(size: int, part: int) -> int:
    """As ``torn_bytes`` of interpose.c."""
    wanted = max(1, size * part // 256)
    return wanted if wanted < size else size - (size > 0)
