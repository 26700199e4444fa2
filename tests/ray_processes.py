"""`pea cache` as a user starts it, in processes that a test can kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from pea.config import Config, resolved_yaml

PATIENCE_S = 300


@contextmanager
def caching(
    config: Config, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`pea cache` in a process of its own, its stderr in a file; nothing that it started outlives the block."""
    path = folder / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    command = [sys.executable, "-m", "stages.cli", "cache", "--config", str(path)]
    with (folder / "stderr").open("wb") as errors:  # a pipe would stay open as long as any of Ray's processes
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=os.environ | dict(environment or {})
        )
    try:
        yield process
    finally:
        end_with_descendants(process)


def run_to_the_end(config: Config, folder: Path, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code and stderr of a `pea cache` that nobody kills."""
    with caching(config, folder, environment) as process:
        code = process.wait(timeout=PATIENCE_S)
    return code, stderr(folder)


def stderr(folder: Path) -> str:
    """What the last `pea cache` of a folder said on stderr."""
    return (folder / "stderr").read_text("utf-8")


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes below one."""
    with suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def end_with_descendants(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process and all that are below it."""
    for one in descendants(process):
        with suppress(psutil.Error):
            one.kill()
    process.kill()
    process.wait()
