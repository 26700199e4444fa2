"""Sudden deaths: whatever is killed, and whenever, the same command run again gives the undisturbed cache."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, PngImagePlugin

from pea.cache import Cache
from pea.cache.audit import audit
from pea.config import Config
from pea.errors import CacheError
from tests.collect.test_collector import assert_same
from tests.ray_processes import (
    PATIENCE_S,
    caching,
    descendants,
    is_actor,
    is_raylet,
    run_to_the_end,
    stderr,
    wait_for_work,
)
from tests.tiny_setup import fill_cache, make_setup, write_tar

KILLS_OF_EACH = int(os.environ.get("PEA_TEST_KILLS", "2"))
"""Ten and more by hand."""
MOST_KILLS_OF_A_RUN = 2  # of one sample, three would quarantine it
LONGEST_WAIT_S = 1.0
Wanted = Callable[[psutil.Process], bool]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A setup whose caches were collected in one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("faults")
    config = make_setup(folder, "sd15", num_samples=24)
    for number in range(2, 10):
        write_tar(folder / f"parallel-{number}.tar", range(100 * number, 100 * number + 4), ("en", "zh"))
    config = config.model_copy(update={"run_dir": folder / "undisturbed"})
    for corpus in ("parallel", "culture"):
        fill_cache(config, corpus, folder)
    return config


def kill_one(process: subprocess.Popen[bytes], wanted: Wanted | None) -> bool:
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


def is_complete(config: Config) -> bool:
    """Whether nothing is left to be done."""
    try:
        return all(Cache.open(config.cache_dir(corpus)) for corpus in ("parallel", "culture"))
    except CacheError:
        return False


def kill_at_random(
    process: subprocess.Popen[bytes], config: Config, chance: random.Random, wanted: Wanted | None
) -> int:
    """Kill while tars are worked on, several times where the run goes on by itself; returns how often."""
    num_kills, since_ns = 0, time.time_ns()
    while num_kills < MOST_KILLS_OF_A_RUN and wait_for_work(process, config, since_ns):
        time.sleep(chance.uniform(0, LONGEST_WAIT_S))
        since_ns = time.time_ns()
        if process.poll() is not None or not kill_one(process, wanted) or is_complete(config):
            break
        num_kills += 1
        if wanted is not is_actor:
            break
    return num_kills


def assert_undisturbed(config: Config, undisturbed: Config) -> None:
    """The caches are healthy, and equal in every array those that nobody disturbed."""
    for corpus in ("parallel", "culture"):
        assert audit(config.cache_dir(corpus)).problems == []
        assert_same(Cache.open(config.cache_dir(corpus)), Cache.open(undisturbed.cache_dir(corpus)))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        pytest.param("actor", is_actor, marks=pytest.mark.slow),
        pytest.param("raylet", is_raylet, marks=pytest.mark.by_hand),  # test_ray_nodes.py kills one of two
        pytest.param("driver", None, marks=pytest.mark.slow),
    ],
)
def test_killing_at_random_moments(undisturbed: Config, tmp_path: Path, name: str, wanted: Wanted | None) -> None:
    """The same command is run until the cache is complete, and killed on the way; then the next cache."""
    chance = random.Random(name)
    num_kills = num_caches = 0
    while num_kills < KILLS_OF_EACH:
        num_caches += 1
        config = undisturbed.model_copy(update={"run_dir": tmp_path / f"run{num_caches}"})
        code = -1
        for _ in range(2 * KILLS_OF_EACH):
            with caching(config, tmp_path) as process:
                if num_kills < KILLS_OF_EACH:
                    num_kills += kill_at_random(process, config, chance, wanted)
                code = process.wait(timeout=PATIENCE_S)
            if code == 0:
                break
            assert wanted is None or stderr(tmp_path).count("pea: error: ") == 1, stderr(tmp_path)
        assert code == 0, stderr(tmp_path)
        assert_undisturbed(config, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    try:
        subprocess.run(mounting, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_next_run_completes(undisturbed: Config, tmp_path: Path, small_disk: Path) -> None:
    config = undisturbed.model_copy(update={"run_dir": small_disk / "run"})
    code, errors = run_to_the_end(config, tmp_path)
    assert code == 2
    assert errors.count("pea: error: ") == 1 and "the disk is full" in errors
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    code, errors = run_to_the_end(config, tmp_path)
    assert code == 0, errors
    assert_undisturbed(config, undisturbed)


KILLING_DECODER = """
import os, PIL.Image
_open = PIL.Image.open
def poisonous(file, *args, **options):
    image = _open(file, *args, **options)
    if image.info.get("poison"):
        os.kill(os.getpid(), 9)
    return image
PIL.Image.open = poisonous
"""


@pytest.mark.slow
def test_a_sample_that_kills_its_process_is_left_out_by_name(undisturbed: Config, tmp_path: Path) -> None:
    """A decoder that dies of one image stands for a crash in native code."""
    (tmp_path / "sitecustomize.py").write_text(KILLING_DECODER)
    tar_path = tmp_path / "parallel-0.tar"
    source = next(Path(undisturbed.corpora.parallel.tars[0]).parent.glob("parallel-1.tar"))
    tar_path.write_bytes(source.read_bytes())
    mark = PngImagePlugin.PngInfo()
    mark.add_text("poison", "yes")
    pixels = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(pixels, "PNG", pnginfo=mark)
    with tarfile.open(tar_path, "a") as tar:
        captions = json.dumps({"captions": {"en": "a cat", "zh": "猫"}}).encode()
        for name, content in (("9999.png", pixels.getvalue()), ("9999.json", captions)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    parallel = undisturbed.corpora.parallel.model_copy(update={"tars": (str(tar_path),)})
    config = undisturbed.model_copy(
        update={
            "run_dir": tmp_path / "run",
            "corpora": undisturbed.corpora.model_copy(update={"parallel": parallel}),
            "cache": undisturbed.cache.model_copy(update={"max_dropped_fraction": 0.5}),
        }
    )
    code, errors = run_to_the_end(config, tmp_path, {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"})
    assert code == 0, errors
    record = Cache.open(config.cache_dir("parallel")).shards[0].record
    assert [(key, reason) for key, reason, _ in record.dropped] == [("9999", "process_killed")]
    assert audit(config.cache_dir("parallel")).problems == []
