"""Copies on this machine's disk: verified, bounded, the least recently used go first, and no half of a file is one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from pea.errors import DiskFullError
from pea.storage import Location, local_copies
from pea.storage.local_copies import LocalCopies

SIZE = 1000


class Store:
    """A folder of files that never change, and copies of them."""

    def __init__(self, folder: Path, most_bytes: int = 10 * SIZE) -> None:
        self.place, self.work = Location.parse(folder / "tar/p000-1.zarr"), folder / "work"
        self.copies = LocalCopies(most_bytes, self.work)

    def put(self, name: str, size: int = SIZE) -> tuple[Location, str, int, str]:
        data = name.encode() * size
        data = data[:size]
        (self.place / name).write_bytes(data)
        return self.place, name, size, f"{zlib.crc32(data):08x}"

    def names(self) -> set[str]:
        return {path.name for path in self.work.rglob("*") if path.is_file()}

    def path(self, name: str) -> Path:
        return self.copies.folder(self.place) / name


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def grow_old(*paths: Path) -> None:
    """Each last used a second after the one before, a day ago."""
    for number, path in enumerate(paths):
        os.utime(path, (time.time() - 86400 + number,) * 2)


def test_a_file_is_fetched_once(store: Store) -> None:
    wanted = store.put("a/c/0")
    assert not store.copies.has(*wanted[:3]) and store.copies.bring(*wanted) and store.copies.has(*wanted[:3])
    assert store.path("a/c/0").read_bytes() == (store.place / "a/c/0").read_bytes()
    (store.place / "a/c/0").delete()
    assert store.copies.bring(*wanted)
    assert LocalCopies(SIZE, store.work).bring(*wanted), "another process finds it"


def test_what_the_store_holds_in_place_of_it_is_no_copy(store: Store) -> None:
    place, name, size, digest = store.put("a")
    for content in (b"x" * size, b"a" * (size - 1), b"a" * (size + 1), b""):
        (place / name).write_bytes(content)
        assert not store.copies.bring(place, name, size, digest) and store.names() == set()
        with pytest.raises(ValueError, match="other bytes than were written"):
            store.copies.bring(place, name, size, digest, must=True)
    (place / name).delete()
    assert not store.copies.bring(place, name, size, digest)
    with pytest.raises(FileNotFoundError):
        store.copies.bring(place, name, size, digest, must=True)
    assert store.names() == set()


def test_the_least_recently_used_go_first_and_the_bound_holds(store: Store) -> None:
    files = [store.put(f"{number:02}") for number in range(10)]
    assert all(store.copies.bring(*each) for each in files) and len(store.names()) == 10
    grow_old(*(store.path(each[1]) for each in reversed(files)))
    os.utime(store.path("09"))  # it was the oldest, and is used again
    later = LocalCopies(10 * SIZE, store.work)
    assert later.bring(*store.put("new"))
    assert store.names() == {"new", "09", *(f"{number:02}" for number in range(8))}


def test_what_this_reader_uses_stays(store: Store) -> None:
    """Who goes through more than there is room for, again and again, finds as much as there is room for."""
    files = [store.put(f"{number:02}") for number in range(15)]
    brought = [store.copies.bring(*each) for each in files]
    assert brought == [True] * 10 + [False] * 5
    assert [store.copies.bring(*each) for each in files] == brought
    assert store.copies.bring(*files[-1], must=True) and len(store.names()) <= 10, "where there is no other way"


def test_a_file_beyond_the_bound_is_not_fetched(store: Store) -> None:
    small, large = store.put("small"), store.put("large", 10 * SIZE + 1)
    assert store.copies.bring(*small) and not store.copies.bring(*large)
    assert store.names() == {"small"}, "and nothing went for it"


def test_what_dead_processes_were_fetching_counts_and_goes(store: Store) -> None:
    other = LocalCopies(10 * SIZE, store.work)
    assert store.copies.bring(*store.put("a"))
    living, dead = (store.path("a").with_name(f".b{local_copies.temporary_sibling(Path('x')).name}") for _ in range(2))
    for path in (living, dead):
        path.write_bytes(b"b" * 9 * SIZE)
    os.utime(dead, (time.time() - 7200,) * 2)
    assert not other.bring(*store.put("c")) and not dead.exists() and living.exists()


KILLED = """
import os, sys, signal
from pathlib import Path
from pea.storage import Location, local_copies
size, digest = int(sys.argv[3]), sys.argv[4]
local_copies._BLOCK_BYTES = 100
pieces = local_copies.RunningDigest.add
def add(self, block):
    pieces(self, block)
    if self.num_bytes > size // 2:
        os.kill(os.getpid(), signal.SIGKILL)
local_copies.RunningDigest.add = add
local_copies.LocalCopies(10**6, Path(sys.argv[1])).bring(Location.parse(sys.argv[2]), "a", size, digest)
"""


def test_a_killed_process_leaves_nothing_that_is_read(store: Store) -> None:
    place, name, size, digest = store.put("a")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(store.work), str(place), str(size), digest], check=False
    ).returncode
    assert ended < 0 and len(store.names()) == 1 and "a" not in store.names(), "half of a file, under another name"
    assert not store.copies.has(place, name, size)
    assert store.copies.bring(place, name, size, digest) and store.path(name).stat().st_size == size


def test_a_copy_that_was_cut_is_fetched_again(store: Store) -> None:
    """As after a power cut."""
    wanted = store.put("a")
    assert store.copies.bring(*wanted)
    store.path("a").write_bytes(b"")
    assert LocalCopies(SIZE, store.work).bring(*wanted) and store.path("a").stat().st_size == SIZE
    store.copies.drop(*wanted[:2])
    assert not store.copies.has(*wanted[:3])


def test_a_full_disk_is_no_error_but_where_there_is_no_other_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", full)
    wanted = store.put("a")
    assert not store.copies.bring(*wanted) and store.names() == set()
    with pytest.raises(DiskFullError):
        store.copies.bring(*wanted, must=True)


def test_copies_of_what_was_replaced_go(store: Store) -> None:
    assert store.copies.bring(*store.put("a"))
    newer = Location.parse(store.place.parent / "p000-2.zarr")
    other = Location.parse(store.place.parent / "p001-1.zarr")
    for each in (newer, other):
        path = store.copies.folder(each) / "b"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"b")
    store.copies.drop_others(newer, ("p000-", "p000."))
    assert not store.path("a").exists() and (store.copies.folder(newer) / "b").exists()
    assert (store.copies.folder(other) / "b").exists()
