"""`ray job submit`, as in the README, on a real cluster of two nodes: two raylets on this machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pea.cache import Cache
from pea.config import Config, resolved_yaml
from tests.collect.test_collector import assert_same
from tests.ray_processes import end_with_descendants

pytestmark = pytest.mark.slow

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_PATIENCE_S = 400
_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
_ENVIRONMENT["RAY_AUTH_MODE"] = "disabled"  # an earlier local Ray leaves a token, and then a head asks for it


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """The address of the dashboard of a cluster with one CPU on each of two nodes."""
    folder = tempfile.mkdtemp(prefix="pea-")  # sockets go here, and their paths must be short
    port, dashboard_port = free_port(), free_port()
    common = ["--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
    common += ["--node-ip-address=127.0.0.1"]
    head = ["start", "--head", f"--port={port}", f"--dashboard-port={dashboard_port}", f"--temp-dir={folder}"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate(([*head, *common], ["start", f"--address=127.0.0.1:{port}", *common])):
            with (tmp_path / f"node{number}.log").open("wb") as log:
                node = subprocess.Popen([*RAY, *command], stdout=log, stderr=subprocess.STDOUT, env=_ENVIRONMENT)
            processes.append(node)
            _wait_until_it_runs(node, tmp_path / f"node{number}.log")
        yield f"http://127.0.0.1:{dashboard_port}"
    finally:
        for process in reversed(processes):
            end_with_descendants(process)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_runs(node: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while "Ray runtime started." not in log.read_text("utf-8"):
        assert node.poll() is None, log.read_text("utf-8")
        assert time.monotonic() < deadline, "the node does not start"
        time.sleep(0.2)


def test_a_submitted_job_fills_the_same_cache_from_two_nodes(
    tiny_sdxl: Config, fresh_run: Config, dashboard: str, tmp_path: Path
) -> None:
    run = fresh_run.cache.run.model_copy(update={"num_actors": 2, "num_cpus_per_actor": 1.0})
    config = fresh_run.model_copy(update={"cache": fresh_run.cache.model_copy(update={"run": run})})
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    submit = [*RAY, "job", "submit", "--address", dashboard, "--working-dir", ".", "--"]
    job = [sys.executable, "-m", "stages.cache_teacher", "--config", str(path)]
    done = subprocess.run(
        [*submit, *job], capture_output=True, text=True, timeout=_PATIENCE_S, env=_ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with urllib.request.urlopen(f"{dashboard}/api/v0/actors?detail=1") as answer:
        actors = json.load(answer)["data"]["result"]["result"]
    assert len({actor["node_id"] for actor in actors if actor["class_name"] == "TeacherActor"}) == 2
    for corpus in ("parallel", "culture"):
        assert_same(Cache.open(config.cache_dir(corpus)), Cache.open(tiny_sdxl.cache_dir(corpus)))
