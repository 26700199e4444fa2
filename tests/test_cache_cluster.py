"""`ray job submit`, as in the README, on a real cluster of two nodes: two raylets on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pea.cache import Cache
from pea.config import Config, resolved_yaml
from tests.test_collect import assert_same

pytestmark = pytest.mark.slow

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_PATIENCE_S = 400


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """The address of the dashboard of a cluster with one CPU on each of two nodes."""
    port, dashboard_port = free_port(), free_port()
    common = ["--block", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
    head = ["start", "--head", f"--port={port}", f"--dashboard-port={dashboard_port}", f"--temp-dir={tmp_path / 'ray'}"]
    commands = [[*head, *common], ["start", f"--address=127.0.0.1:{port}", *common]]
    processes = []
    for command in commands:
        log = (tmp_path / f"node{len(processes)}.log").open("w")
        processes.append(subprocess.Popen([*RAY, *command], stdout=log, stderr=subprocess.STDOUT))
        _wait_for_nodes(port, len(processes))
    yield f"http://127.0.0.1:{dashboard_port}"
    for process in reversed(processes):
        process.terminate()
        process.wait(timeout=60)


def _wait_for_nodes(port: int, count: int) -> None:
    """Until the cluster has that many nodes."""
    script = (
        "import ray, sys, time\n"
        "deadline = time.monotonic() + 180\n"
        "while True:\n"
        "    try:\n"
        f"        ray.init(address='127.0.0.1:{port}', logging_level='ERROR', log_to_driver=False)\n"
        f"        if sum(node['Alive'] for node in ray.nodes()) >= {count}: break\n"
        "    except Exception:\n"
        "        if time.monotonic() > deadline: raise\n"
        "    ray.shutdown()\n"
        "    time.sleep(1)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=_PATIENCE_S)


def test_a_submitted_job_fills_the_same_cache_from_two_nodes(
    tiny_sdxl: Config, fresh_run: Config, dashboard: str, tmp_path: Path
) -> None:
    run = fresh_run.cache.run.model_copy(update={"num_actors": 2, "num_cpus_per_actor": 1.0})
    config = fresh_run.model_copy(update={"cache": fresh_run.cache.model_copy(update={"run": run})})
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    submit = [*RAY, "job", "submit", "--address", dashboard, "--working-dir", ".", "--"]
    job = [sys.executable, "-m", "stages.cache_teacher", "--config", str(path)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [*submit, *job], capture_output=True, text=True, timeout=_PATIENCE_S, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for corpus in ("parallel", "culture"):
        assert_same(Cache.open(config.cache_dir(corpus)), Cache.open(tiny_sdxl.cache_dir(corpus)))
