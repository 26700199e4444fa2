"""What a place can be used for, found out by using it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pea.storage import disk
from pea.storage import probe as probe_module
from pea.storage.location import Location
from pea.storage.probe import Probe, file_system, probe


def look(path: Path) -> Probe:
    return probe(Location.parse(path))


def test_a_good_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.refused == {} and found.tried == Location.parse(tmp_path)
    assert found.free_bytes is not None and found.free_bytes > 0
    assert found.clock_ahead_s is not None and abs(found.clock_ahead_s) < 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_to_be_made_is_tried_above_and_not_made(tmp_path: Path) -> None:
    found = look(tmp_path / "run" / "demo")
    assert found.refused == {} and found.tried == Location.parse(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "below", "below/that"])
def test_a_file_in_the_way_is_found_out(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        assert look(tmp_path / name / below).refused == {"write": f"{tmp_path / name} is no folder"}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link"]


def test_where_nothing_can_be_written_nothing_else_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system", str(tmp_path))

    monkeypatch.setattr(disk, "atomic_write", refuse)
    found = look(tmp_path)
    assert list(found.refused) == ["write"] and "\n" not in found.refused["write"]


def test_a_storage_that_overwrites_what_is_there_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As file systems do whose `link` or conditional write is no more than a write."""
    monkeypatch.setattr(disk.DiskFile, "create", disk.DiskFile.write)
    found = look(tmp_path)
    assert list(found.refused) == ["create if absent"]
    assert "not created only if absent" in found.refused["create if absent"]
    assert list(tmp_path.iterdir()) == []


def test_a_storage_without_links_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert list(look(tmp_path).refused) == ["create if absent"]


def test_an_exclusive_open_that_is_none_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open
    monkeypatch.setattr(probe_module.os, "open", lambda path, flags, *mode: really(path, flags & ~os.O_EXCL, *mode))
    assert "O_EXCL is not honoured" in look(tmp_path).refused["exclusive open"]


@pytest.mark.parametrize(("kind", "shared"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False), (None, False)])
def test_what_other_machines_see(tmp_path: Path, kind: str | None, shared: bool) -> None:
    assert Probe(Location.parse(tmp_path), kind).is_shared is shared
    assert Probe(Location.parse("s3://bucket/key")).is_shared


def test_the_kind_of_file_system_is_that_of_the_deepest_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n"
        f"2 1 0:2 / {tmp_path}/with\\040space rw - nfs4 server:/ rw\n"
        f"3 1 0:3 / {tmp_path}/other rw - xfs /dev/sdb rw\n"
        f"4 1 0:4 / {tmp_path}/other rw - tmpfs none rw\n"
    )
    real = Path
    monkeypatch.setattr(
        probe_module, "Path", lambda *parts: mounts if parts == ("/proc/self/mountinfo",) else real(*parts)
    )
    kinds = [file_system(tmp_path / name) for name in ("with space/a", "with", "other", "")]
    assert kinds == ["nfs4", "ext4", "tmpfs", "ext4"]


def test_every_kind_of_place_is_good(root: Location) -> None:
    found = probe(root)
    assert found.refused == {}
    assert found.is_shared is not root.is_local
    assert list(root.list()) == []
