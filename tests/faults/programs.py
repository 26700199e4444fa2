"""Runs small programs under the interposing library, for the tests of the kit itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.control import ControlFile, Fault, Operation
from tests.faults.disk import Disk
from tests.faults.interposer import library
from tests.faults.tree import Tree, read_tree


@dataclass(frozen=True)
class Ran:
    """What a program did in its folder."""

    status: int
    output: str
    folder: Path
    control: ControlFile
    start: Path

    @property
    def operations(self) -> list[Operation]:
        """The log, with paths relative to the folder."""
        return [operation.below(self.folder) for operation in self.control.operations()]

    @property
    def texts(self) -> list[str]:
        """The log as it is shown."""
        return [str(operation) for operation in self.operations]

    @property
    def disk(self) -> Disk:
        """The log replayed."""
        disk = Disk(self.start, self.folder)
        disk.replay(self.control.operations())
        return disk

    @property
    def tree(self) -> Tree:
        """What the folder holds."""
        return read_tree(self.folder)


def run_program(
    code: str,
    place: Path,
    fault: Fault | None = None,
    *,
    before: dict[str, bytes] | None = None,
    packages: bool = False,
    skip_sync: bool = True,
) -> Ran:
    """Run Python code whose working directory is a watched folder.

    ``before``: files that are there already; ``packages``: it imports more than the standard library.
    """
    for name in ("watched", "start"):
        (place / name).mkdir(parents=True)
        for file, data in (before or {}).items():
            (place / name / file).write_bytes(data)
    control = ControlFile(place / "control", place / "watched", fault, skip_sync=skip_sync)
    environment = {**os.environ, "LD_PRELOAD": str(library()), "PEA_FAULTS_CONTROL": str(control.path)}
    done = subprocess.run(
        [sys.executable, *([] if packages else ["-I", "-S"]), "-c", code],
        cwd=place / "watched",
        env=environment,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout + done.stderr, place / "watched", control, place / "start")
