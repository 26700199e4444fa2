"""Nodes that go, see no disk or belong to others, and heads that die: two raylets on this machine."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pea.cache import Cache
from pea.config import Config
from tests.ray_processes import (
    PATIENCE_S,
    RayCluster,
    caching,
    descendants,
    end_with_descendants,
    is_actor,
    is_raylet,
    run_to_the_end,
    stderr,
    stdout,
    wait_for_work,
)
from tests.stages.cluster.test_cache_faults import assert_undisturbed, undisturbed
from tests.stages.test_cache_teacher import with_workers

__all__ = ["undisturbed"]

ROUNDS = 1
ROUNDS_BY_HAND = 10
LONGEST_WAIT_S = 3.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """A head without CPUs."""
    cluster = RayCluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.end()


def fresh(config: Config, run_dir: Path, num_actors: int = 2) -> Config:
    """The same setup with an empty run folder."""
    return with_workers(config.model_copy(update={"run_dir": run_dir}), num_actors=num_actors)


def kill_raylet(node: subprocess.Popen[bytes]) -> None:
    """SIGKILL Ray's process of a node; its workers notice, and end."""
    [raylet] = [process for process in descendants(node) if is_raylet(process)]
    raylet.kill()


def lose_a_node(config: Config, cluster: RayCluster, folder: Path, chance: random.Random) -> float:
    """Kill one of two nodes at a random moment of a run that must go on by itself; returns the seconds from there."""
    nodes = [cluster.add_node(), cluster.add_node()]
    with caching(config, folder, cluster.for_drivers) as process:
        assert wait_for_work(process, config), stderr(folder)
        time.sleep(chance.uniform(0, LONGEST_WAIT_S))
        assert process.poll() is None, "the run was over too soon to be disturbed"
        began = time.monotonic()
        chance.choice([kill_raylet, end_with_descendants])(chance.choice(nodes))
        code = process.wait(timeout=PATIENCE_S)
    seconds = time.monotonic() - began
    assert code == 0, stdout(folder) + stderr(folder)
    for node in nodes:
        end_with_descendants(node)
    return seconds


@pytest.mark.parametrize(
    "rounds", [pytest.param(ROUNDS, marks=pytest.mark.slow), pytest.param(ROUNDS_BY_HAND, marks=pytest.mark.by_hand)]
)
def test_a_node_that_is_lost_for_good_at_a_random_moment(
    undisturbed: Config, cluster: RayCluster, tmp_path: Path, rounds: int
) -> None:
    chance = random.Random(rounds)
    for number in range(rounds):
        config = fresh(undisturbed, tmp_path / f"run{number}")
        seconds = lose_a_node(config, cluster, tmp_path, chance)
        print(f"round {number}: complete {seconds:.1f} s after a node was lost")
        assert_undisturbed(config, undisturbed)


@pytest.mark.slow
def test_a_node_that_comes_later_takes_part_and_the_first_may_go(
    undisturbed: Config, cluster: RayCluster, tmp_path: Path
) -> None:
    config = fresh(undisturbed, tmp_path / "run")
    first = cluster.add_node()
    with caching(config, tmp_path, cluster.for_drivers) as process:
        assert wait_for_work(process, config), stderr(tmp_path)
        end_with_descendants(first)
        cluster.add_node()
        assert process.wait(timeout=PATIENCE_S) == 0, stdout(tmp_path) + stderr(tmp_path)
    assert_undisturbed(config, undisturbed)


BLIND = """
import os, pathlib
if os.environ.get("PEA_TEST_BLIND"):
    _open, _stat = pathlib.Path.open, pathlib.Path.stat
    def blind(method):
        def refuse(self, *args, **options):
            if self.name.endswith(".tar"):
                raise FileNotFoundError(2, "No such file or directory", str(self))
            return method(self, *args, **options)
        return refuse
    pathlib.Path.open, pathlib.Path.stat = blind(_open), blind(_stat)
"""


@pytest.mark.slow
def test_a_node_that_does_not_see_the_tars_is_left_out_by_name(
    undisturbed: Config, cluster: RayCluster, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(BLIND)
    cluster.add_node(environment={"PYTHONPATH": f"{code}:{Path.cwd()}", "PEA_TEST_BLIND": "yes"})
    cluster.add_node()
    config = fresh(undisturbed, tmp_path / "run")
    exit_code, errors = run_to_the_end(config, tmp_path, cluster.for_drivers)
    assert exit_code == 0, stdout(tmp_path) + errors
    assert "is left out: 3 tars failed there that other nodes read" in stdout(tmp_path).replace("\n", " ")
    assert_undisturbed(config, undisturbed)


OCCUPY = """
import sys, time
import ray
from stages.cluster.session import join
join(sys.argv[1])

@ray.remote(num_cpus=1)
class Neighbour:
    def ping(self):
        pass

neighbour = Neighbour.remote()
ray.get(neighbour.ping.remote())
print("ready", flush=True)
time.sleep(3600)
"""


@contextmanager
def other_peoples_job(cluster: RayCluster) -> Iterator[None]:
    """One that holds a CPU and does not end."""
    process = subprocess.Popen(
        [sys.executable, "-c", OCCUPY, cluster.address],
        stdout=subprocess.PIPE,
        env=cluster.environment | cluster.for_drivers,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        end_with_descendants(process)
        process.stdout.close()


@pytest.mark.slow
def test_no_tar_waits_for_other_peoples_jobs(undisturbed: Config, cluster: RayCluster, tmp_path: Path) -> None:
    cluster.add_node()
    cluster.add_node()
    config = fresh(undisturbed, tmp_path / "run")
    with other_peoples_job(cluster):
        code, errors = run_to_the_end(config, tmp_path, cluster.for_drivers)
    assert code == 0, stdout(tmp_path) + errors
    assert_undisturbed(config, undisturbed)


@pytest.mark.slow
def test_a_lost_head_is_one_line(undisturbed: Config, cluster: RayCluster, tmp_path: Path) -> None:
    node = cluster.add_node()
    config = fresh(undisturbed, tmp_path / "run")
    with caching(config, tmp_path, cluster.for_drivers) as process:
        assert wait_for_work(process, config), stderr(tmp_path)
        for actor in filter(is_actor, descendants(node)):
            actor.suspend()  # actors that have their tars would end such a small run without the head
        [head] = [each for each in descendants(cluster.head) if each.name() == "gcs_server"]
        head.kill()
        assert process.wait(timeout=120) == 2
    [line] = [line for line in stderr(tmp_path).splitlines() if line.startswith("pea: error: ")]
    assert "the head of the Ray cluster, or Ray on this machine, is gone" in line


@pytest.mark.slow
def test_a_second_run_beside_the_first(undisturbed: Config, cluster: RayCluster, tmp_path: Path) -> None:
    cluster.add_node()
    cluster.add_node()
    config = fresh(undisturbed, tmp_path / "run", num_actors=1)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with (
        caching(config, folders[0], cluster.for_drivers) as first,
        caching(config, folders[1], cluster.for_drivers) as second,
    ):
        codes = [process.wait(timeout=PATIENCE_S) for process in (first, second)]
    assert codes == [0, 0], "".join(stdout(folder) + stderr(folder) for folder in folders)
    assert_undisturbed(config, undisturbed)
    assert Cache.open(config.cache_dir("parallel")).num_samples == sum(
        shard.num_samples for shard in Cache.open(undisturbed.cache_dir("parallel")).shards
    )
