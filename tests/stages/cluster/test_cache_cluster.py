"""`ray job submit`, as in the README, on a real cluster of two nodes: two raylets on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pea.cache import Cache
from pea.config import Config, resolved_yaml
from tests.collect.test_collector import assert_same
from tests.ray_processes import PATIENCE_S, RAY_COMMAND, RayCluster, free_port
from tests.stages.test_cache_teacher import with_workers

pytestmark = pytest.mark.slow

AGENT_PATIENCE_S = 120


@pytest.fixture
def dashboard_port() -> int:
    return free_port()


@pytest.fixture
def cluster(tmp_path: Path, dashboard_port: int) -> Iterator[RayCluster]:
    """Two nodes with one CPU each, and a dashboard that takes jobs."""
    cluster = RayCluster(tmp_path, num_cpus=1, dashboard_port=dashboard_port)
    try:
        cluster.add_node()
        yield cluster
    finally:
        cluster.end()


def test_a_submitted_job_fills_the_same_cache_from_two_nodes(
    tiny_sdxl: Config, fresh_run: Config, cluster: RayCluster, dashboard_port: int, tmp_path: Path
) -> None:
    config, dashboard = with_workers(fresh_run, num_actors=2), f"http://127.0.0.1:{dashboard_port}"
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    submit = [*RAY_COMMAND, "job", "submit", "--address", dashboard, "--working-dir", ".", "--"]
    job = [sys.executable, "-m", "stages.cache_teacher", "--config", str(path)]
    deadline = time.monotonic() + AGENT_PATIENCE_S
    while True:
        done = subprocess.run(
            [*submit, *job], capture_output=True, text=True, timeout=PATIENCE_S, env=cluster.environment, check=False
        )
        if "No available agent to submit job" not in done.stderr or time.monotonic() > deadline:
            break  # Ray's agent is up some time after Ray
    assert done.returncode == 0, done.stdout + done.stderr
    token = cluster.environment["RAY_AUTH_TOKEN"]
    question = urllib.request.Request(
        f"{dashboard}/api/v0/actors?detail=1", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(question) as answer:
        actors = json.load(answer)["data"]["result"]["result"]
    assert len({actor["node_id"] for actor in actors if actor["class_name"] == "TeacherActor"}) == 2
    for corpus in ("parallel", "culture"):
        assert_same(Cache.open(config.cache_dir(corpus)), Cache.open(tiny_sdxl.cache_dir(corpus)))
