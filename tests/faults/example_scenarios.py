"""Writers of one file, careful and careless, on which the walk itself is tested."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.scenario import Scenario

TEXT = "what is to be written\n" * 3


def _command(write: Callable[[Path], None]) -> Callable[[Path], int]:
    """Writes the file unless it is there; what the system refuses is said in one line."""

    def command(folder: Path) -> int:
        path = folder / "file"
        if path.exists():
            return 0
        try:
            write(path)
        except OSError as error:
            print(f"pea: error: {error}", file=sys.stderr)
            return 2
        return 0

    return command


def _in_place(path: Path) -> None:
    path.write_text(TEXT)


def _in_halves(path: Path) -> None:
    with path.open("w") as file:
        for half in (TEXT[:20], TEXT[20:]):
            file.write(half)
            file.flush()
            os.fsync(file.fileno())


def _renamed(path: Path, *, sync_file: bool = True, sync_folder: bool = True) -> None:
    temporary = path.with_name("temporary")
    with temporary.open("w") as file:
        file.write(TEXT)
        file.flush()
        if sync_file:
            os.fsync(file.fileno())
    temporary.rename(path)
    if sync_folder:
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _result(folder: Path) -> str:
    return (folder / "file").read_text()


def _between(folder: Path) -> None:
    assert not (folder / "file").exists() or _result(folder) == TEXT, "half of a file is shown"


def _unguarded(folder: Path) -> int:
    _renamed(folder / "file")
    return 0


def _stumbles(folder: Path) -> int:
    (folder / "made").mkdir()
    (folder / "file").mkdir()
    return 0


def _leaves_more(folder: Path) -> int:
    (folder / "private").write_text("x")
    code = _command(_renamed)(folder)
    (folder / "private").unlink()
    return code


CAREFUL = Scenario(_command(_renamed), _result, between=_between)
IN_PLACE = Scenario(_command(_in_place), _result, between=_between)
IN_HALVES = Scenario(_command(_in_halves), _result, between=_between)
UNSYNCED = Scenario(_command(lambda path: _renamed(path, sync_file=False)), _result, between=_between)
UNSYNCED_NAME = Scenario(_command(lambda path: _renamed(path, sync_folder=False)), _result, between=_between)
UNGUARDED = Scenario(_unguarded, _result)
NOT_AGAIN = Scenario(_stumbles, lambda folder: (folder / "file").is_dir())
LEFT_OVER = Scenario(
    lambda folder: 0 if (folder / "file").exists() else _leaves_more(folder),
    _result,
    leftovers=lambda folder: ["private"] if (folder / "private").exists() else [],
)
BROKEN = Scenario(lambda _: 3, _result)
