"""Files and folders that are published whole, also by several writers at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.errors import StorageError
from pea.storage.durable import new_folder, write_text
from pea.storage.location import Location


def test_of_two_writers_of_one_folder_the_last_one_wins(tmp_path: Path) -> None:
    with new_folder(tmp_path / "made") as late:
        (late / "name").write_text("late")
        with new_folder(tmp_path / "made") as early:
            (early / "name").write_text("early")
        assert (tmp_path / "made/name").read_text() == "early"
    assert (tmp_path / "made/name").read_text() == "late"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_may_not_be_replaced_is_kept(tmp_path: Path) -> None:
    with new_folder(tmp_path / "made", replace=False) as late:
        (late / "name").write_text("late")
        write_text(tmp_path / "made/name", "early")
    assert (tmp_path / "made/name").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_cannot_be_written_is_named_and_not_its_temporary_file(tmp_path: Path) -> None:
    place = Path("/proc/page.html")
    with pytest.raises(OSError, match=r"/proc/page\.html") as caught:
        write_text(place, "text")
    assert (caught.value.filename, caught.value.filename2) == (str(place), None)
    with pytest.raises(OSError, match="/proc/made'"), new_folder(Path("/proc/made")):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(tmp_path / "folder", "text")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "folder"), None)
    with pytest.raises(FileNotFoundError, match="/made/below/name'"), new_folder(tmp_path / "made") as folder:
        (folder / "below/name").write_text("text")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    said = r"a file lies where a folder is needed.*file"
    with pytest.raises(StorageError, match=said):
        write_text(tmp_path / "file/below/name", "text")
    with pytest.raises(StorageError, match=said), new_folder(tmp_path / "file/below/made"):
        pass
    with pytest.raises(StorageError, match=said):
        Location.parse(tmp_path / "file/below/name").write_bytes(b"text")
