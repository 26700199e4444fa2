"""What a power cut leaves: fsynced bytes under fsynced names, and nothing else for sure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.control import Cut
from tests.faults.disk import Disk
from tests.faults.interposer import reason_to_skip
from tests.faults.programs import Ran, run_program
from tests.faults.tree import Tree, read_tree, write_tree

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))

HEAD = """
import os
def put(name, data, sync=False, flags=os.O_CREAT | os.O_WRONLY):
    f = os.open(name, flags); os.write(f, data)
    if sync: os.fsync(f)
    os.close(f)
def sync(name="."):
    f = os.open(name, os.O_RDONLY); os.fsync(f); os.close(f)
"""
OLD = {"old": b"old"}


def ran(code: str, place: Path, before: dict[str, bytes] | None = None, **options: bool) -> Ran:
    done = run_program(HEAD + code, place, before=before, **options)
    assert done.status == 0, done.output
    assert done.disk.now() == done.tree
    return done


@pytest.mark.parametrize(
    ("code", "lost", "empty"),
    [
        ("put('new', b'x')", OLD, {**OLD, "new": b""}),
        ("put('new', b'x', sync=True)", OLD, {**OLD, "new": b"x"}),
        ("put('new', b'x'); sync()", {**OLD, "new": b""}, {**OLD, "new": b""}),
        ("put('new', b'x', sync=True); sync()", {**OLD, "new": b"x"}, {**OLD, "new": b"x"}),
        ("put('new', b'x', sync=True); sync(); put('new', b'yy')", {**OLD, "new": b"x"}, {**OLD, "new": b"x"}),
        ("put('old', b'new', flags=os.O_WRONLY | os.O_TRUNC)", OLD, {"old": b""}),
        ("os.truncate('old', 1)", OLD, {"old": b""}),
        ("os.unlink('old')", OLD, {}),
        ("os.unlink('old'); sync()", {}, {}),
        ("os.rename('old', 'moved')", OLD, {"moved": b"old"}),
        ("os.rename('old', 'moved'); sync()", {"moved": b"old"}, {"moved": b"old"}),
        ("put('t', b'n'); os.rename('t', 'old'); sync()", {"old": b""}, {"old": b""}),
        ("put('t', b'n', sync=True); os.rename('t', 'old'); sync()", {"old": b"n"}, {"old": b"n"}),
        ("os.mkdir('d'); os.rename('old', 'd/old'); sync('d')", {}, {"d": None, "d/old": b"old"}),
        ("os.mkdir('d'); sync(); os.rename('old', 'd/old'); sync()", {**OLD, "d": None}, {"d": None, "d/old": b"old"}),
        ("os.mkdir('d'); put('d/f', b'x', sync=True); sync()", {**OLD, "d": None}, {**OLD, "d": None, "d/f": b"x"}),
        ("os.link('old', 'two'); sync()", {**OLD, "two": b"old"}, {**OLD, "two": b"old"}),
        ("os.symlink('old', 's'); sync()", {**OLD, "s": "old"}, {**OLD, "s": "old"}),
        ("f = open('f', 'wb'); os.unlink('f'); f.write(b'x'); f.flush()", OLD, OLD),
        ("put('f', b'12'); os.rename('f', 'g'); f = os.open('g', os.O_WRONLY); os.fsync(f); sync()", None, None),
    ],
)
def test_what_is_left(tmp_path: Path, code: str, lost: Tree | None, empty: Tree | None) -> None:
    both: Tree = {**OLD, "g": b"12"}
    disk = ran(code, tmp_path, OLD).disk
    assert disk.after_power_cut("lost") == (both if lost is None else lost)
    assert disk.after_power_cut("empty") == (both if empty is None else empty)


def test_mixtures_are_many_and_all_allowed(tmp_path: Path) -> None:
    """Bytes are the old ones or some of the new ones, and what was made durable is always there."""
    code = "put('safe', b's' * 9, sync=True); sync(); put('t', b'n' * 9); os.rename('t', 'old'); os.mkdir('d')"
    disk = ran(code, tmp_path, OLD).disk
    found = [disk.after_power_cut("mixed", seed) for seed in range(300)]
    assert found == [disk.after_power_cut("mixed", seed) for seed in range(300)]
    assert all(tree["safe"] == b"s" * 9 for tree in found)
    names = {frozenset(tree) for tree in found}
    assert names == {frozenset({"safe", "old", *more}) for more in ((), ("t",), ("d",), ("t", "d"))}
    contents = {tree["old"] for tree in found}
    assert {b"old", b"", b"n" * 9} <= contents and len(contents) > 5
    assert all(content == b"old" or set(bytes(content)) <= {0, ord("n")} for content in contents if content is not None)  # type: ignore[arg-type]


def test_syncing_is_counted_though_left_out(tmp_path: Path) -> None:
    code = "put('new', b'x', sync=True); sync()"
    quick, true = ran(code, tmp_path / "quick", skip_sync=True), ran(code, tmp_path / "true", skip_sync=False)
    assert quick.texts == true.texts and sum(text.startswith("sync") for text in quick.texts) == 2


def test_what_the_model_does_not_know_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    moved = run_program("import os; os.rename('../outside', 'inside')", tmp_path)
    with pytest.raises(ValueError, match="which no operation made: rename"):
        _ = moved.disk


@pytest.mark.parametrize("cut", ["lost", "empty", "mixed"])
def test_nothing_is_lost_of_what_was_there_before(tmp_path: Path, cut: Cut) -> None:
    tree: Tree = {"a": None, "a/b": b"1", "c": "a/b", "d": b""}
    write_tree(tree, tmp_path / "folder")
    assert read_tree(tmp_path / "folder") == tree
    assert Disk(tmp_path / "folder", tmp_path / "folder").after_power_cut(cut, 5) == tree
