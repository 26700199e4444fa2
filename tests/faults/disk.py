"""A model of a disk: what a folder holds after a power cut, by the log of what was done and made durable in it.

What is modelled is what POSIX promises, and no more: bytes are durable after fsync of the file, names after fsync of
their folder; a rename is whole or has not happened. What was not made durable may be there or not.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.control import Cut, Op, Operation
from tests.faults.tree import Node, Tree, all_nodes, current_tree, read_node, tree_of

_DELETED = " (deleted)"
_EXCHANGE = 2


@dataclass(eq=False)
class _Change:
    """Entries of folders that change together."""

    folder: Node
    """The folder whose fsync makes it durable."""
    edits: list[tuple[Node, str, Node | None]]
    durable: bool = False


class Disk:
    """The model of one folder."""

    def __init__(self, start: Path, folder: Path) -> None:
        """``start``: what the folder held, durably, before the first operation. ``folder``: its path in the log."""
        self._root_path = str(folder.resolve())
        self._root = read_node(start)
        self._changes: list[_Change] = []

    def replay(self, operations: Iterable[Operation]) -> None:
        """Do what a log says.

        Raises:
            ValueError: it does what this model does not know.
        """
        for operation in operations:
            if operation.done:
                try:
                    self._do(operation)
                except KeyError as error:
                    raise ValueError(f"the log speaks of {error}, which no operation made: {operation}") from error

    def now(self) -> Tree:
        """What the folder holds as long as the power is on."""
        return current_tree(self._root)

    def after_power_cut(self, cut: Cut, seed: int = 0) -> Tree:
        """What it holds after a power cut.

        ``lost``: what was not made durable is gone, names and bytes. ``empty``: all names are kept, and files hold
        what they held at their last fsync: nothing, if there was none or they were emptied since (as ext4 does it with
        delayed allocation). ``mixed``: any of what POSIX allows, by the seed.
        """
        chance = random.Random(seed)
        if cut == "lost":
            kept = [change.durable for change in self._changes]
        elif cut == "empty":
            kept = [True] * len(self._changes)
        else:
            kept = self._some_changes(chance)
        entries = self._entries([change for change, keep in zip(self._changes, kept, strict=True) if keep])
        return tree_of(
            self._root,
            lambda node: entries.get(node, node.first_entries),
            lambda node: _bytes_after(node, cut, chance),
        )

    def _some_changes(self, chance: random.Random) -> list[bool]:
        pending = [index for index, change in enumerate(self._changes) if not change.durable]
        if chance.random() < 0.5:  # a journal: what was done first is there first
            chosen = set(pending[: chance.randint(0, len(pending))])
        else:
            chosen = {index for index in pending if chance.random() < 0.5}
        return [change.durable or index in chosen for index, change in enumerate(self._changes)]

    def _entries(self, changes: Iterable[_Change]) -> dict[Node, dict[str, Node]]:
        found: dict[Node, dict[str, Node]] = {}
        for change in changes:
            for folder, name, node in change.edits:
                entries = found.setdefault(folder, dict(folder.first_entries))
                if node is None:
                    entries.pop(name, None)
                else:
                    entries[name] = node
        return found

    def _do(self, operation: Operation) -> None:
        if operation.path.endswith(_DELETED):
            return
        actions = {
            Op.OPEN: self._open,
            **dict.fromkeys((Op.WRITE, Op.COPY, Op.FLUSH), self._write),
            **dict.fromkeys((Op.TRUNCATE, Op.ALLOCATE), self._resize),
            Op.SYNC: self._sync,
            Op.RENAME: self._rename,
            Op.LINK: lambda each: self._change(each.other, self._node(each.path)),
            Op.SYMLINK: lambda each: self._change(each.path, Node(target=each.other)),
            Op.MKDIR: lambda each: self._change(each.path, Node(entries={})),
            **dict.fromkeys((Op.UNLINK, Op.RMDIR), lambda each: self._change(each.path, None)),
        }
        if operation.op in actions:
            actions[operation.op](operation)

    def _open(self, operation: Operation) -> None:
        if operation.value & os.O_TMPFILE == os.O_TMPFILE:
            raise ValueError(f"a file without a name is not modelled: {operation}")
        folder, name = self._place(operation.path)
        if name not in (folder.entries or {}):
            self._change(operation.path, Node())
        node = self._node(operation.path)
        if operation.value & os.O_TRUNC and node.entries is None:
            node.truncated |= bool(node.content)
            node.content.clear()

    def _write(self, operation: Operation) -> None:
        node = self._node(operation.path)
        end = operation.offset + len(operation.data)
        if operation.data and len(node.content) < end:
            node.content.extend(bytes(end - len(node.content)))
        node.content[operation.offset : end] = operation.data
        if operation.op is Op.FLUSH and operation.value:
            self._sync(operation)

    def _resize(self, operation: Operation) -> None:
        node, size = self._node(operation.path), operation.value
        if operation.op is Op.ALLOCATE:
            size = max(len(node.content), operation.offset + operation.value)
        node.truncated |= size < len(node.content)
        del node.content[size:]
        node.content.extend(bytes(size - len(node.content)))

    def _sync(self, operation: Operation) -> None:
        everything = operation.op is Op.SYNC and operation.value
        node = self._node(operation.path)
        nodes = all_nodes(self._root) if everything else [node]
        for each in nodes:
            each.durable, each.truncated = bytes(each.content), False
        for change in self._changes:
            change.durable |= everything or change.folder is node

    def _rename(self, operation: Operation) -> None:
        if operation.value & _EXCHANGE:
            raise ValueError(f"an exchange of names is not modelled: {operation}")
        node = self._node(operation.path)
        (old_folder, old), (new_folder, new) = self._place(operation.path), self._place(operation.other)
        if new_folder.entries is not None and new_folder.entries.get(new) is node:
            return  # two names of one file: rename does nothing
        self._apply(_Change(new_folder, [(old_folder, old, None), (new_folder, new, node)]))

    def _change(self, path: str, node: Node | None) -> None:
        folder, name = self._place(path)
        self._apply(_Change(folder, [(folder, name, node)]))

    def _apply(self, change: _Change) -> None:
        for folder, name, node in change.edits:
            assert folder.entries is not None
            if node is None:
                del folder.entries[name]
            else:
                folder.entries[name] = node
        self._changes.append(change)

    def _place(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self._node(folder), name

    def _node(self, path: str) -> Node:
        if path != self._root_path and not path.startswith(self._root_path + "/"):
            raise KeyError(path)
        node = self._root
        for name in filter(None, path[len(self._root_path) :].split("/")):
            node = (node.entries or {})[name]
        return node


def _bytes_after(node: Node, cut: Cut, chance: random.Random) -> bytes:
    if not node.is_dirty:
        return bytes(node.content)
    before = node.durable or b""
    if cut != "mixed":
        return b"" if cut == "empty" and node.truncated else before
    size = chance.randint(0, len(node.content))
    written = bytes(node.content)
    return chance.choice([before, b"", written, written[:size], written[:size] + bytes(len(written) - size)])
