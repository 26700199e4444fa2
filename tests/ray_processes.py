"""`pea cache` as a user starts it, and clusters for it, in processes that a test can kill; all on loopback."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from pea.config import Config, resolved_yaml

PATIENCE_S = 600
_START_S = 120
# `ray start` takes loopback for an address that others cannot reach and replaces it; here there are no others.
_RAY_START = """
import ray._private.services as services
services.resolve_ip_for_localhost = lambda host: host
services.get_node_ip_address = lambda *_: "127.0.0.1"
from ray.scripts.scripts import main
main()
"""
RAY_COMMAND = [sys.executable, "-c", _RAY_START]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RayCluster:
    """A head, and nodes that come and go: each a raylet on this machine, with a token, on loopback."""

    def __init__(self, folder: Path, *, num_cpus: int = 0, dashboard_port: int | None = None) -> None:
        """``folder``: for what they print; ``num_cpus``: of the head."""
        self._folder = folder
        self._sessions = tempfile.mkdtemp(prefix="pea-")  # sockets go here, and their paths must be short
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.processes: list[subprocess.Popen[bytes]] = []
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        options = ["--head", f"--port={port}", f"--num-cpus={num_cpus}", f"--temp-dir={self._sessions}"]
        if dashboard_port is None:
            options.append("--include-dashboard=false")
        else:
            options += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
        try:
            self.head = self._start(options)
        except BaseException:
            self.end()
            raise

    def add_node(self, num_cpus: int = 1, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Another node; ``environment``: more variables, which its workers get too."""
        return self._start([f"--address={self.address}", f"--num-cpus={num_cpus}"], environment)

    @property
    def for_drivers(self) -> dict[str, str]:
        """Environment variables with which a driver finds the cluster and is let in."""
        token = {name: value for name, value in self.environment.items() if name.startswith("RAY_AUTH_")}
        return {"RAY_ADDRESS": self.address, **token}

    def end(self) -> None:
        """SIGKILL everything, and remove what it left."""
        for process in reversed(self.processes):
            end_with_descendants(process)
        shutil.rmtree(self._sessions, ignore_errors=True)

    def _start(self, options: list[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        common = ["--block", "--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--disable-usage-stats"]
        log = self._folder / f"ray{len(self.processes)}.log"
        with log.open("wb") as file:
            command = [*RAY_COMMAND, "start", *options, *common]
            node = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=self.environment | dict(environment or {})
            )
        self.processes.append(node)
        deadline = time.monotonic() + _START_S
        while "Ray runtime started." not in log.read_text("utf-8"):
            assert node.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, "the node does not start"
            time.sleep(0.1)
        return node


def is_actor(process: psutil.Process) -> bool:
    """Whether a process is a worker that holds the teacher."""
    return any("TeacherActor" in word for word in process.cmdline())


def is_raylet(process: psutil.Process) -> bool:
    """Whether a process is Ray's own on a node."""
    return process.name() == "raylet"


@contextmanager
def caching(
    config: Config, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`pea cache` in a process of its own, its output in files; nothing that it started outlives the block."""
    path = folder / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    command = [sys.executable, "-m", "stages.cli", "cache", "--config", str(path)]
    said, errors = folder / "stdout", folder / "stderr"
    with said.open("wb") as out, errors.open("wb") as err:  # a pipe would stay open as long as any of Ray's processes
        process = subprocess.Popen(command, stdout=out, stderr=err, env=os.environ | dict(environment or {}))
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


def stdout(folder: Path) -> str:
    """What the last `pea cache` of a folder said on stdout."""
    return (folder / "stdout").read_text("utf-8")


def wait_for_work(process: subprocess.Popen[bytes], config: Config, since_ns: int = 0) -> bool:
    """Until a worker has begun a tar after a moment; False if everything is over before."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        assert time.monotonic() < deadline, "no worker began"
        with suppress(FileNotFoundError):  # what a writer has done with is deleted
            for corpus in ("parallel", "culture"):
                for path in (config.cache_dir(corpus) / "shards").rglob("*"):
                    if path.stat().st_mtime_ns > since_ns:
                        return True
        time.sleep(0.02)
    return False


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
