"""Files and folders that are published whole, also by several writers at once."""

from __future__ import annotations

from pathlib import Path

from pea.storage.durable import new_folder, write_text


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
