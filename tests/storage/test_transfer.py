"""Copies are what they are copies of, and a broken copy is taken up again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pea.errors import StorageError
from pea.storage import Location
from pea.storage.transfer import copy_file, copy_folder, download_folder, upload_folder

FILES = {"a": b"", "b/c": b"content", "b/d.bin": os.urandom(6 << 20), "ü/x y": b"z"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(content)
    return tmp_path / "source"


class TestContract:
    def test_a_folder_goes_there_and_back(self, root: Location, folder: Path, tmp_path: Path) -> None:
        copied = upload_folder(folder, root / "copy")
        assert (copied.num_files, copied.num_bytes, copied.num_kept) == (4, sum(map(len, FILES.values())), 0)
        assert {each.name for each in (root / "copy").entries(recursive=True)} == set(FILES)
        download_folder(root / "copy", tmp_path / "back")
        assert {name: (tmp_path / "back" / name).read_bytes() for name in FILES} == FILES

    @pytest.mark.slow
    def test_only_what_is_missing_or_differs_is_copied_again(self, root: Location, folder: Path) -> None:
        upload_folder(folder, root)
        (root / "a").delete()
        (root / "b/c").write_bytes(b"CONTENT")
        (root / "b/d.bin").write_bytes(FILES["b/d.bin"][:-1])
        told = []
        copied = copy_folder(Location.parse(folder), root, told=lambda name, num_bytes: told.append((name, num_bytes)))
        assert (copied.num_files, copied.num_kept) == (3, 1)
        assert sorted(told) == [("a", 0), ("b/c", 7), ("b/d.bin", 6 << 20), ("ü/x y", 0)]
        assert all((root / name).read_bytes() == content for name, content in FILES.items())
        assert copy_folder(Location.parse(folder), root).num_files == 0

    def test_only_what_is_wanted_is_copied(self, root: Location, folder: Path) -> None:
        copy_folder(Location.parse(folder), root, wanted=lambda name: name.startswith("b/"))
        assert [each.name for each in root.entries(recursive=True)] == ["b/c", "b/d.bin"]

    def test_a_copy_that_is_not_what_was_read_is_refused(
        self, root: Location, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = Location.write_pieces

        def write_badly(self: Location, pieces: object) -> None:
            write(self, (piece.replace(b"c", b"C") for piece in pieces))  # type: ignore[attr-defined]

        monkeypatch.setattr(Location, "write_pieces", write_badly)
        with pytest.raises(StorageError, match="the copy is not what was read; expected 7 bytes, CRC"):
            copy_file(Location.parse(folder / "b/c"), root / "copy")
