"""From the names of a tar's members to keys: which files are one sample, and which are none.

A key is a file's path without its last extension. Files of one key lie side by side, as every WebDataset writer puts
them. WebDataset itself ends a key at the *first* dot, so that ``k.seg.png`` is a further file of ``k``. Both are
served: files of a longer name (``k.seg.png``) that lie among those of a shorter one (``k.png``, ``k.json``) belong to
it and are not asked for, unless image *and* json are there for the longer name; then it is a sample, as
``img.v1.000001`` is in a tar of ``img.v1.000001.jpg``, ``img.v1.000001.json``, ``img.v1.000002.jpg``, ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pea.corpus.archive import Member
from pea.corpus.rules import JSON, MAX_KEY_CHARACTERS
from pea.errors import TarUnusableError
from pea.plurals import count_of


class Unread(NamedTuple):
    """Stands for the bytes of a file that are not read."""

    reason: str
    """Code from ``pea.corpus.reasons``; empty where nothing is wrong."""
    detail: str = ""


Content = bytes | Unread


@dataclass
class Group:
    """The files of one key that lie side by side."""

    key: str
    files: dict[str, Content] = field(default_factory=dict)
    """Extension -> content, of the image and the json."""
    others: set[str] = field(default_factory=set)
    """Extensions that nobody asks for."""

    def has(self, extension: str) -> bool:
        """Whether there is such a file."""
        return extension in self.files or extension in self.others

    def forget_bytes(self) -> None:
        """It can be no sample."""
        self.files = {name: each if isinstance(each, Unread) else Unread("") for name, each in self.files.items()}

    @property
    def complete(self) -> bool:
        """Whether it has an image and a json."""
        return _complete(self.files)

    @property
    def extensions(self) -> str:
        """For a message."""
        return ", ".join(sorted({*self.files, *self.others}))[:200]


def split_name(name: str) -> tuple[str, str] | None:
    """``("a/k", "jpg")`` of ``a/k.JPG``. None: no file of a sample: hidden, a Mac's second half, or no extension."""
    folder, _, base = name.rpartition("/")
    if base.startswith(".") or "." not in base or "__MACOSX" in folder.split("/"):
        return None
    stem, _, extension = name.rpartition(".")
    return stem, extension.lower()


def key_problem(key: str) -> str | None:
    """Why a key cannot be used as it is: None, ``key_not_utf8`` or ``key_too_long``."""
    if len(key) > MAX_KEY_CHARACTERS:
        return "key_too_long"
    return None if shown_key(key) == key else "key_not_utf8"


def shown_key(key: str) -> str:
    """A key as it is recorded: itself, or something of bounded length in UTF-8."""
    shown = key.encode("utf-8", "backslashreplace").decode()
    if len(shown) <= MAX_KEY_CHARACTERS:
        return shown
    return f"{shown[:200]}…{hashlib.sha256(shown.encode()).hexdigest()[:16]}"


def key_groups(
    members: Iterable[Member], image_extensions: Collection[str], content: Callable[[Member, str], Content]
) -> Iterator[Group]:
    """The keys of a tar with their files, in the order in which they end.

    ``content`` is asked for each image and json, with the key that its name says, before the next member is looked at.
    """
    wanted = {*image_extensions, JSON}
    family = _Family()
    for member in members:
        split = None if member.kind == "directory" else split_name(member.name)
        if split is None:
            continue
        stem, extension = split
        yield from family.place(stem, extension)
        if extension in wanted:
            family.current.files[extension] = content(member, stem)
        else:
            family.current.others.add(extension)
    yield from family.close()


class _Family:
    """The keys, one after the other, that are the same up to the first dot of the file's name."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._root: Group | None = None
        self._nested: Group | None = None
        self._complete: set[str] = set()
        self._undecided: list[Group] = []

    @property
    def current(self) -> Group:
        """The group of the member that was placed last."""
        group = self._nested or self._root
        assert group is not None
        return group

    def place(self, stem: str, extension: str) -> list[Group]:
        """Find the group of a member; returns those that end before it."""
        closed, name = [], _up_to_first_dot(stem)
        if name != self._name:
            closed, self._name = self.close(), name
        if self._nested and self._nested.key == stem and not self._nested.has(extension):
            return closed
        closed += self._end(self._nested)
        self._nested = None
        root = self._root
        if root and stem.startswith(f"{root.key}."):
            self._nested = Group(stem)
        elif not root or root.key != stem or root.has(extension):
            closed += self._end(root)
            self._root = Group(stem)
        return closed

    def close(self) -> list[Group]:
        """Everything that has not been returned, but for the further files of keys that are complete."""
        closed = [*self._end(self._nested), *self._end(self._root)]
        closed += [group for group in self._undecided if not self._is_extra(group.key)]
        self._root = self._nested = None
        self._complete.clear()
        self._undecided.clear()
        return closed

    def _end(self, group: Group | None) -> list[Group]:
        """A complete group is returned; another may turn out to be further files of one that is."""
        if group is None:
            return []
        if group.complete:
            self._complete.add(group.key)
            return [group]
        if not (self._root and self._root.complete and group is self._nested):
            self._undecided.append(group)
            group.forget_bytes()
        return []

    def _is_extra(self, key: str) -> bool:
        parts = key.split(".")
        return any(".".join(parts[:count]) in self._complete for count in range(1, len(parts)))


def _up_to_first_dot(stem: str) -> str:
    folder, slash, base = stem.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _complete(files: Collection[str]) -> bool:
    return JSON in files and len(files) > 1


class SeenKeys:
    """The keys of a tar so far: which come again, and how many could be samples."""

    def __init__(self, where: object) -> None:
        self._where = where
        self._files: dict[str, frozenset[str]] = {}
        self._num_complete = self._num_apart = 0

    @property
    def num_samples(self) -> int:
        """Different keys with an image or a json."""
        return sum(bool(files) for files in self._files.values())

    @property
    def keys(self) -> list[str]:
        """Every key once, in order of first appearance, as it is recorded."""
        return [shown_key(key) for key in self._files]

    def note(self, group: Group) -> str | None:
        """Count a key. Returns why it cannot be used: None, ``key_duplicate`` or ``files_apart``."""
        self._num_complete += group.complete
        before = self._files.get(group.key)
        self._files[group.key] = both = (before or frozenset()) | group.files.keys()
        if before is None:
            return None
        if _complete(both) and not _complete(before) and not group.complete:
            self._num_apart += 1
            return "files_apart"
        return "key_duplicate"

    def finish(self) -> None:
        """The tar has been read to its end.

        Raises:
            CorpusError: images and jsons are there, and nowhere side by side.
        """
        if self._num_apart and not self._num_complete:
            raise TarUnusableError(
                "the files of a sample do not lie side by side",
                where=self._where,
                got=f"{count_of(self._num_apart, 'key')} whose image and json are far apart",
                remedy="Write the tar again with its files sorted by name: `tar --sort=name -cf NEW.tar FOLDER`.",
            )
