"""The files of `configs/cluster`: what can be run here is run, the rest is compared with what it speaks of."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pea.cache import Cache
from pea.config import Config, resolved_yaml
from stages.cli import parse
from tests.collect.test_collector import assert_same
from tests.ray_processes import PATIENCE_S, RAY_COMMAND, end_with_descendants
from tests.stages.test_cache_teacher import with_workers

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "configs/cluster"
CONSTRAINTS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M))


@pytest.fixture(scope="module")
def job() -> Any:
    return yaml.safe_load((CLUSTER / "rayjob.yaml").read_text("utf-8"))


def test_the_ray_job_runs_the_caching_stage_with_the_tested_ray(job: Any) -> None:
    spec = job["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:3] == ["python", "-m", "stages.cache_teacher"]
    assert parse(["cache", *words[3:]]).config == [Path("/etc/pea/setup.yaml")]
    assert spec["rayClusterSpec"]["rayVersion"] == CONSTRAINTS["ray"]


def test_every_pod_has_the_token_and_the_nodes_the_setup(job: Any) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    nodes = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [job["spec"]["submitterPodTemplate"], *(node["template"] for node in nodes)]
    for pod in pods:
        [container] = pod["spec"]["containers"]
        names = {variable["name"] for variable in container["env"]}
        assert names == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} and container["image"] == "pea-cache"
    for node in nodes:
        [container] = node["template"]["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in node["template"]["spec"]["volumes"]} == {"setup"}
    assert not re.search(r"token: [0-9a-f]{16}", (CLUSTER / "rayjob.yaml").read_text()), "no token in a file"


def test_the_image_copies_what_the_package_needs() -> None:
    text = (CLUSTER / "Dockerfile").read_text("utf-8")
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", text, flags=re.M) for name in line.split()}
    assert {"pea", "stages", "data_tools", "configs", "constraints.txt", "pyproject.toml"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    kept = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert kept == copied, "what the context leaves out cannot be copied"
    extras = re.findall(r'pip install -c constraints.txt "\.\[(\w+)\]"', text)
    assert extras == ["all"] and "\nall = [" in (ROOT / "pyproject.toml").read_text()


def test_the_working_folder_of_a_job_has_the_code_and_no_data() -> None:
    """As Ray 2.60 reads `.rayignore`: patterns of gitignore."""
    from ray._private.runtime_env.packaging import _get_ignore_file

    left_out = _get_ignore_file(ROOT, ignore_file=".rayignore")
    assert left_out is not None
    for name in ("runs/demo/metrics.json", "checkpoints/sdxl/unet/a.safetensors", "a/b.tar", ".venv/bin/python"):
        assert left_out(ROOT / name), name
    for name in (
        "pea/errors.py",
        "stages/cli.py",
        "configs/sdxl.yaml",
        "data_tools/world/checkpoints/sdxl/model_index.json",
    ):
        assert not left_out(ROOT / name), name


@pytest.mark.slow
def test_the_slurm_script_fills_a_cache_from_two_nodes(tiny_sdxl: Config, fresh_run: Config, tmp_path: Path) -> None:
    """With `srun` and `scontrol` that stand for Slurm's: every "node" is a raylet on this machine, on loopback."""
    stubs = tmp_path / "venv/bin"
    stubs.mkdir(parents=True)
    ray = shlex.join([*RAY_COMMAND, "start"])
    here = "--node-ip-address=127.0.0.1 --object-store-memory=80000000"
    scripts = {
        "scontrol": "printf 'node-a\\nnode-b\\n'",
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "hostname": "echo 127.0.0.1",
        "ray": f'shift; exec {ray} {here} "${{@/--node-ip-address=*/--node-ip-address=127.0.0.1}}"',
        "python": f'exec {shlex.quote(sys.executable)} "$@"',
    }
    for name, script in scripts.items():
        (stubs / name).write_text(f"#!/bin/bash\n{script}\n")
        (stubs / name).chmod(0o755)
    (stubs / "activate").write_text(f"export PATH={shlex.quote(str(stubs))}:$PATH\n")
    path = tmp_path / "setup.yaml"
    config = with_workers(fresh_run, num_actors=2)
    path.write_text(resolved_yaml(config), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PEA_VENV": str(stubs.parent), "PEA_HEAD_SECONDS": "8", "SLURM_SUBMIT_DIR": str(ROOT)}
    environment |= {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_JOB_ID": str(os.getpid()), "SLURM_CPUS_PER_TASK": "1"}
    command = ["bash", str(CLUSTER / "slurm.sh"), str(path), "cache.run.batch_size=4"]
    with (tmp_path / "output").open("wb") as output:  # a pipe would stay open as long as any of Ray's processes
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            code = process.wait(PATIENCE_S)
        finally:
            end_with_descendants(process)
    assert code == 0, (tmp_path / "output").read_text("utf-8")
    for corpus in ("parallel", "culture"):
        assert_same(Cache.open(config.cache_dir(corpus)), Cache.open(tiny_sdxl.cache_dir(corpus)))
