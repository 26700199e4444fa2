"""Two ways to run a command under the interposing library: forks of a warm process, and processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from tests.faults.control import ControlFile
from tests.faults.interposer import library
from tests.faults.scenario import Scenario
from tests.faults.server import FAILED, PATIENCE_S, TIMED_OUT

Call = Literal["prepare", "command", "result", "between", "leftovers"]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a call ended."""

    status: int
    """Exit code, or minus the signal that ended it."""
    value: Any
    """What the function gave, if it ended well."""
    output: str
    """Everything that it said."""


class Runner(Protocol):
    """Runs the functions of a scenario."""

    def run(self, call: Call, folder: Path, control: ControlFile | None = None) -> Ended:
        """Run one of them on a folder; ``control``: under the interposing library."""
        ...


class Forked:
    """Forks of one process that has imported the scenario: a step takes milliseconds. One step at a time."""

    def __init__(self, scenario: str, scratch: Path) -> None:
        """``scenario``: ``module:NAME``; ``scratch``: a folder of its own, outside what is watched."""
        scratch.mkdir(parents=True, exist_ok=True)
        self._output = scratch / "output"
        self.process_file = scratch / "output.pid"
        """Holds the number of the process that runs at present, which leads a group of its own."""
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", scenario],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=_environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(
        self,
        call: Call,
        folder: Path | str,
        control: ControlFile | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """As of ``Runner``. ``folder``: or a URL; ``environment``: variables that are added."""
        assert self._server.stdin is not None and self._server.stdout is not None
        request: dict[str, Any] = {"call": call, "folder": str(folder), "output": str(self._output)}
        request |= {"control": control and str(control.path), "environment": dict(environment or {})}
        request["chance"] = f"{call} {control is not None}" if isinstance(folder, Path) else None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of the walk ended: {self._server.wait()}")
        return Ended(**json.loads(answer), output=self._output.read_text(errors="replace"))


class Subprocesses:
    """A program of any kind, started anew for each step; the scenario's other functions run in this process."""

    def __init__(self, arguments: Sequence[str], scenario: Scenario) -> None:
        """``{folder}`` in an argument stands for the folder. The scenario's own command is not used."""
        self._arguments, self._scenario = list(arguments), scenario

    def run(self, call: Call, folder: Path, control: ControlFile | None = None) -> Ended:
        """As of ``Runner``."""
        if call != "command":
            try:
                return Ended(0, getattr(self._scenario, call)(folder), "")
            except Exception:  # noqa: BLE001 - it is a finding, whatever it is
                return Ended(FAILED, None, traceback.format_exc())
        arguments = [each.replace("{folder}", str(folder)) for each in self._arguments]
        environment = _environment() if control else dict(os.environ)
        if control is not None:
            environment["PEA_FAULTS_CONTROL"] = str(control.path)
        with subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=PATIENCE_S)
                status = process.returncode
            except subprocess.TimeoutExpired:
                output, status = b"", TIMED_OUT
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return Ended(status, None, output.decode(errors="replace"))


def _environment() -> dict[str, str]:
    loaded = ":".join(filter(None, (str(library()), os.environ.get("LD_PRELOAD"))))
    return {**os.environ, "LD_PRELOAD": loaded, "OMP_NUM_THREADS": "1"}
