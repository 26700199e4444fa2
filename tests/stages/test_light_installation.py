"""What `pip install pea-cache` brings is enough to use an adapter, and what it lacks is named by its extra."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import load_file

from pea.models.adapter import PEA
from stages.command.extras import EXTRAS, remedy_for
from tests.pipeline.pipes import make_parts

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BLOCKED = sorted({*EXTRAS, "webdataset", "pandas", "boto3", "pytest"})
WITHOUT = f"""
import importlib.machinery, sys
blocked = {BLOCKED!r}
find = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in blocked else find(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
from stages.cli import main
for words in {{words!r}}:
    try:
        print("code", main(words))
    except SystemExit as stopped:
        print("code", stopped.code)
"""


SETUP = """
run_dir: .
teacher: {checkpoint: teacher}
corpora: {parallel: {tars: [none.tar]}}
student: {encoder: zh}
evaluate: {device: cpu}
"""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def without(*words: list[str]) -> subprocess.CompletedProcess[str]:
    """Commands in a process to which the packages of all extras are not there."""
    code = WITHOUT.replace("{words!r}", repr(list(words)))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_light_installation_lists_what_it_is_said_to_hold() -> None:
    light = names(PROJECT["dependencies"])
    assert light >= {"torch", "diffusers", "transformers", "safetensors"}
    assert not light & {"ray", "zarr", "tensorstore", "matplotlib", "accelerate", "gradio", "numcodecs", "obstore"}


def resolved(extra: str) -> set[str]:
    """Distributions of an extra, with those of the extras that it names."""
    found: set[str] = set()
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            for each in requirement.extras:
                found |= resolved(each)
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def test_every_extra_brings_what_an_error_promises_of_it() -> None:
    for module, extra in EXTRAS.items():
        assert module in resolved(extra), f"[{extra}] does not bring {module}"
    assert resolved("all") >= {*EXTRAS} - {"gradio"}
    assert {"cache", "train", "app", "all"} <= PROJECT["optional-dependencies"].keys()
    assert "'pea-cache[cache]'" in str(remedy_for("ray.util")) and remedy_for("somebody") is None
    for module in EXTRAS:
        assert ("[all]" in str(remedy_for(module))) == (module in resolved("all")), module
    assert '".[all,dev]"' in (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.slow
def test_commands_that_lack_an_extra_say_which() -> None:
    done = without(
        ["generate", "--help"], ["push", "--help"], ["convert", "--help"], ["cache", "--config", "configs/demo.yaml"]
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 0"] * 3 + ["code 2"], (
        done.stderr
    )
    [line] = done.stderr.splitlines()
    assert line.startswith("pea: error: this needs a package more: ") and "pip install 'pea-cache[" in line


@pytest.mark.slow
def test_every_command_that_lacks_an_extra_says_which() -> None:
    config = ["--config", "configs/demo.yaml"]
    commands = [
        ["cache", *config],
        ["train", *config],
        ["report", *config],
        ["app", "--adapter", "x"],
    ]
    done = without(*commands)
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 2"] * len(commands)
    lines = [line for line in done.stderr.splitlines() if line.startswith("pea: ")]
    assert len(lines) == len(commands) and all("pip install 'pea-cache[" in line for line in lines), done.stderr


@pytest.fixture
def light_packages(tmp_path: Path) -> Path:
    """A folder with links to what the light installation requires, and to what that requires, and to nothing else."""
    folder = tmp_path / "site"
    folder.mkdir()
    todo, seen = sorted(names(PROJECT["dependencies"])), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(canonicalize_name(requirement.name))
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


@pytest.mark.slow
def test_what_uses_an_adapter_runs_on_what_is_declared(light_packages: Path, tmp_path: Path) -> None:
    """`make_parts` names no hub, so that push stops at asking for one: after the adapter has been read and checked."""
    make_parts(tmp_path, "sdxl")
    torch.save(PEA(16, 32, 12, hidden_size=16).state_dict(), tmp_path / "pea.bin")
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= {"PYTHONPATH": f"{ROOT}:{light_packages}", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import sys; from stages.cli import main; sys.exit(main(sys.argv[1:]))"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-W", "ignore", "-c", code, *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    assert not (light_packages / "ray").exists() and not (light_packages / "zarr").exists()
    models = ["--base", "teacher", "--encoder", "zh"]
    converted = run("convert", "pea.bin", "--out", "converted", "--language", "zh", *models)
    assert converted.returncode == 0, converted.stderr
    for adapter in ("adapter", "converted"):
        drawn = run(
            "generate", "一只猫", "--adapter", adapter, "--base", "teacher", "--steps", "1", "--out", adapter + "-out"
        )
        assert drawn.returncode == 0, drawn.stderr
        assert (tmp_path / f"{adapter}-out/000-一只猫.png").is_file()
    (tmp_path / "setup.yaml").write_text(SETUP)
    drawn = run("generate", "一只猫", "--config", "setup.yaml", "--steps", "1", "--out", "configured")
    assert drawn.returncode == 0 and len(list((tmp_path / "configured").iterdir())) == 1, drawn.stderr
    torch.save(load_file(tmp_path / "zh/model.safetensors"), tmp_path / "zh/pytorch_model.bin")
    (tmp_path / "zh/model.safetensors").rename(tmp_path / "model.safetensors")
    imported = run("import", "zh", "--out", "imported")
    assert imported.returncode == 0 and (tmp_path / "imported/model.safetensors").is_file(), imported.stderr
    pushed = run("push", "converted", "org/x", "--licence", "mit", "--dry-run")
    assert pushed.returncode == 2 and "Name it with --encoder org/name" in pushed.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the project's git repository")
def test_what_is_installed_has_every_file_that_the_packages_read(tmp_path: Path) -> None:
    """A wheel of what git tracks, unpacked elsewhere: all data files are in it, `pea init` finds its families there."""
    tracked = subprocess.run(
        ["git", "ls-files", "pea", "stages", "data_tools"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    source = tmp_path / "source"
    for name in (*tracked, "configs", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name)
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "-w", tmp_path, source], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    assert [name for name in tracked if not (tmp_path / "site" / name).is_file() and (ROOT / name).exists()] == []
    code = "from stages.command import families as f; print([sorted(f.family_settings(each)) for each in f.FAMILIES])"
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("teacher") == 2, done.stderr
