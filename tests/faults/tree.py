"""Folders in memory: files, folders and symbolic links apart from their names, and whole trees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

Tree = dict[str, bytes | str | None]
"""Relative path -> bytes of a file, target of a symbolic link, None for a folder."""


@dataclass(eq=False)
class Node:
    """A file, folder or symbolic link, whatever its names."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytes | None = None
    """Bytes at the last fsync; None: there was none."""
    truncated: bool = False
    """Emptied since the last fsync."""
    target: str | None = None
    entries: dict[str, Node] | None = None
    """Of a folder: what it holds now."""
    first_entries: dict[str, Node] = field(default_factory=dict)
    """Of a folder: what it held durably at the start."""

    @property
    def is_dirty(self) -> bool:
        return self.durable is None or self.content != self.durable


def write_tree(tree: Tree, folder: Path) -> None:
    """Make a folder that holds this; what it held before must be gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(tree.items()):
        path = folder / name
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def read_tree(folder: Path) -> Tree:
    """What a folder holds."""
    return current_tree(read_node(folder))


def read_node(path: Path) -> Node:
    if path.is_symlink():
        return Node(target=str(path.readlink()))
    if path.is_dir():
        entries = {child.name: read_node(child) for child in path.iterdir()}
        return Node(entries=entries, first_entries=dict(entries))
    data = path.read_bytes()
    return Node(bytearray(data), data)


def all_nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in (node.entries or {}).values():
        yield from all_nodes(child)


def tree_of(
    node: Node,
    entries: Callable[[Node], dict[str, Node]],
    content: Callable[[Node], bytes],
    prefix: str = "",
) -> Tree:
    found: Tree = {}
    for name, child in entries(node).items():
        path = prefix + name
        if child.entries is not None:
            found[path] = None
            found |= tree_of(child, entries, content, f"{path}/")
        else:
            found[path] = content(child) if child.target is None else child.target
    return found


def current_tree(node: Node) -> Tree:
    return tree_of(node, lambda each: each.entries or {}, lambda each: bytes(each.content))
