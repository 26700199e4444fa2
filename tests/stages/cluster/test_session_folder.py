"""Where a Ray of this machine's own keeps its sockets and logs."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pea.storage.processes import ProcessName, this_process
from stages.cluster import session_folder


@pytest.fixture(autouse=True)
def _above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_folder, "_above", lambda: tmp_path)


def ended_process() -> ProcessName:
    """One that has run on this machine."""
    code = "from pea.storage.processes import this_process; print(this_process().model_dump_json())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    return ProcessName.model_validate_json(said)


def test_nobody_else_can_enter_it_and_it_goes_with_all_that_is_in_it() -> None:
    folder = session_folder.make()
    (folder / "session").mkdir(mode=0o777)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    session_folder.clear(folder)
    assert not folder.parent.exists()


def test_those_of_ended_commands_are_cleared_by_the_next_one(tmp_path: Path) -> None:
    owners = {"ended": ended_process().model_dump_json(), "living": this_process().model_dump_json()}
    owners |= {"elsewhere": ended_process().model_copy(update={"machine": "other"}).model_dump_json(), "odd": "{"}
    for name, owner in owners.items():
        (tmp_path / f"pea-ray-{name}").mkdir()
        (tmp_path / f"pea-ray-{name}" / "owner.json").write_text(owner)
    (tmp_path / "pea-ray-none").mkdir()
    (tmp_path / "ended").mkdir()
    (tmp_path / "ended" / "owner.json").write_text(owners["ended"])
    (tmp_path / "pea-ray-link").symlink_to(tmp_path / "ended")
    made = session_folder.make().parent
    left = {path.name for path in tmp_path.iterdir()} - {made.name}
    assert left == {"pea-ray-living", "pea-ray-elsewhere", "pea-ray-odd", "pea-ray-none", "pea-ray-link", "ended"}


def test_the_path_of_a_socket_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("RAY_TMPDIR", "/a/folder/with/a/long/name")
    assert session_folder._above() == Path("/tmp")
    monkeypatch.setenv("RAY_TMPDIR", "/scratch")
    assert session_folder._above() == Path("/scratch")
