"""Sudden deaths: whatever is killed, and whenever, the same command run again gives the undisturbed cache."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pea.cache import Cache
from pea.cache.audit import audit
from pea.config import Config, resolved_yaml
from tests.test_collect import assert_same
from tests.tiny_setup import make_setup

pytestmark = pytest.mark.slow

KILLS_OF_EACH = int(os.environ.get("KK", "10"))
_PATIENCE_S = 300


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A setup whose caches were collected in one process that nobody disturbed."""
    return make_setup(tmp_path_factory.mktemp("faults"), "sd15", num_samples=40)


@contextmanager
def caching(config: Config, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`pea cache` in a process of its own, its stderr in a file; nothing that it started outlives the block."""
    path = folder / "config.yaml"
    path.write_text(resolved_yaml(config), encoding="utf-8")
    command = [sys.executable, "-m", "stages.cli", "cache", "--config", str(path)]
    started: set[psutil.Process] = set()
    with (folder / "stderr").open("wb") as errors:  # a pipe would stay open as long as any of Ray's processes
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        yield process
        started.update(descendants(process))
    finally:
        started.update(descendants(process))
        for one in started:
            with suppress(psutil.Error):
                one.kill()
        process.kill()
        process.wait()


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """All processes below one."""
    with suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def is_actor(process: psutil.Process) -> bool:
    """The worker that holds the teacher."""
    return any("TeacherActor" in word for word in process.cmdline())


def is_raylet(process: psutil.Process) -> bool:
    """Ray's own process on this machine."""
    return process.name() == "raylet"


def kill_one(process: subprocess.Popen[bytes], wanted: Callable[[psutil.Process], bool] | None) -> bool:
    """SIGKILL the first descendant that is wanted, or the process itself. Returns whether there was one."""
    if wanted is None:
        process.kill()
        return True
    for one in descendants(process):
        with suppress(psutil.Error):
            if wanted(one):
                one.send_signal(signal.SIGKILL)
                return True
    return False


def wait_for_work(process: subprocess.Popen[bytes], config: Config) -> None:
    """Until a worker has begun a tar, or everything is over."""
    journals = config.run_dir / "state" / "in_flight"
    deadline = time.monotonic() + _PATIENCE_S
    while process.poll() is None and not any(journals.rglob("parallel-*")):
        assert time.monotonic() < deadline, "no worker began"
        time.sleep(0.02)


def run_to_the_end(config: Config, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of an undisturbed `pea cache`."""
    with caching(config, folder) as process:
        code = process.wait(timeout=_PATIENCE_S)
    return code, (folder / "stderr").read_text("utf-8")


@pytest.mark.parametrize(("name", "wanted"), [("actor", is_actor), ("raylet", is_raylet), ("driver", None)])
def test_killing_at_random_moments(
    undisturbed: Config, tmp_path: Path, name: str, wanted: Callable[[psutil.Process], bool] | None
) -> None:
    chance = random.Random(name)
    num_kills = num_runs = 0
    while num_kills < KILLS_OF_EACH:
        num_runs += 1
        config = undisturbed.model_copy(update={"run_dir": tmp_path / f"run{num_runs}"})
        with caching(config, tmp_path) as process:
            wait_for_work(process, config)
            time.sleep(chance.uniform(0, 2.0))
            num_kills += process.poll() is None and kill_one(process, wanted)
            code = process.wait(timeout=_PATIENCE_S)
        errors = (tmp_path / "stderr").read_text("utf-8")
        if code != 0:
            assert wanted is None or "pea: error: " in errors, errors
            code, errors = run_to_the_end(config, tmp_path)
        assert code == 0, errors
        for corpus in ("parallel", "culture"):
            assert audit(config.cache_dir(corpus)).problems == []
            assert_same(Cache.open(config.cache_dir(corpus)), Cache.open(undisturbed.cache_dir(corpus)))
