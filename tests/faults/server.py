"""Runs a scenario's functions in forks of one process, which has imported everything once.

``python -m tests.faults.server MODULE:SCENARIO`` reads one request a line from its input and answers on its output:
``{"call": "command", "folder": ..., "control": ... or null, "environment": {...}, "chance": ... or null,
"output": ...}`` -> ``{"status": ..., "value": ...}``. A folder may be a URL; beside the output file, one that ends in
``.pid`` tells the fork's process. Names that are drawn at random are the same whenever ``chance`` is. What a function
imports is imported here too, for the forks that follow.
The interposing library is in this process from its start (LD_PRELOAD) and armed in the fork, after which nothing but
the function itself runs.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.scenario import Scenario, find_scenario

PATIENCE_S = 600.0
"""How long one call may take: on a machine with other work, minutes are no sign of a standstill."""
TIMED_OUT = 124
FAILED = 1


def _child(scenario: Scenario, request: dict[str, Any], answer: int) -> int:
    """Run the function in this process, which is a fork. Returns the exit code."""
    os.setsid()
    with Path(request["output"]).open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    Path(f"{request['output']}.pid").write_text(str(os.getpid()))
    os.environ.update(request["environment"])
    if request["chance"] is not None:
        os.urandom = random.Random(request["chance"]).randbytes
    known = set(sys.modules)
    function = getattr(scenario, request["call"])
    folder = request["folder"] if "://" in request["folder"] else Path(request["folder"])
    try:
        if request["control"] is not None:
            os.environ["PEA_FAULTS_CONTROL"] = request["control"]
            if error := ctypes.CDLL(None).faults_arm(request["control"].encode()):
                raise OSError(error, os.strerror(error), request["control"])
        value = function(folder)
        code = value if request["call"] == "command" else 0
        prepared = request["call"] == "prepare"  # what that takes, the other functions do not
        imported = [] if prepared else sorted(set(sys.modules) - known)
        os.write(answer, json.dumps({"value": None if prepared else value, "imported": imported}).encode())
    except BaseException:  # noqa: BLE001 - whatever it is, it ends this process and is said
        traceback.print_exc()
        code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


def _wait(child: int) -> int:
    """Its exit code, or minus the signal that ended it."""
    deadline = time.monotonic() + PATIENCE_S
    pause = 0.0005
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return TIMED_OUT
        time.sleep(pause)
        pause = min(0.01, pause * 1.5)


def serve(scenario: Scenario) -> None:
    """Answer until the input ends."""
    gc.freeze()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        with open(f"{request['output']}.value", "w+b") as answer:  # noqa: PTH123
            child = os.fork()
            if child == 0:
                os._exit(_child(scenario, request, answer.fileno()))
            status = _wait(child)
            with suppress(ProcessLookupError):  # what it started and left behind
                os.killpg(child, signal.SIGKILL)
            answer.seek(0)
            text = answer.read()
        told = json.loads(text) if text and status == 0 else {"value": None, "imported": []}
        sys.stdout.write(json.dumps({"status": status, "value": told["value"]}) + "\n")
        sys.stdout.flush()
        _import(told["imported"])


def _import(names: list[str]) -> None:
    for name in names:
        with suppress(ImportError):  # of a name that a module gave itself
            importlib.import_module(name)
    if names:
        gc.freeze()  # the forks' collectors let these pages be


if __name__ == "__main__":
    serve(find_scenario(sys.argv[1]))
