"""The commands of the README, as written and in their order, in a fresh clone.

The clone's demo is smaller by its own settings, and the models of "Make one" are those of the small world under the
names that the README uses; the commands are taken from the page as they stand. What a page marks with the comment
``<!-- not run by the tests: why -->`` is only read (`test_commands.py`).
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.pages import ROOT

PATIENCE_S = 900
_NOT_RUN = r"<!-- not run by the tests: [^>]+ -->\n+"
_SMALLER = (
    ("configs/demo.yaml", "kind: text, steps: 300", "kind: text, steps: 20"),
    ("configs/demo.yaml", "kind: attention, steps: 300", "kind: attention, steps: 20"),
    ("configs/demo.yaml", "kind: unet, steps: 300", "kind: unet, steps: 20"),
    ("configs/demo.yaml", "max_prompts: 128", "max_prompts: 8"),
    ("pipeline.yaml", '--out, "{run_dir}/corpora"', '--samples, "256", --out, "{run_dir}/corpora"'),
)
"""File, text, and what takes its place: settings of the demo, none of which the README names."""


def commands(text: str) -> list[str]:
    """The lines of a page's shell blocks, those of marked blocks left out."""
    found = re.findall(rf"({_NOT_RUN})?^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(block for mark, block in found if not mark).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def test_marked_blocks_are_left_out() -> None:
    page = (
        "```sh\nmake a\n```\n<!-- not run by the tests: a cluster -->\n```sh\nray b\n```\n```sh\npea c \\\n  d\n```\n"
    )
    assert commands(page) == ["make a", "pea c    d"]
    assert len(commands((ROOT / "README.md").read_text("utf-8"))) >= 9, "the README's commands are run"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the last commit, with this environment in the place of the one that it would set up."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", folder], check=True)
    venv = folder / ".venv"
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    for file, before, after in _SMALLER:
        text = (folder / file).read_text("utf-8")
        assert text.count(before) == 1, (file, before)
        (folder / file).write_text(text.replace(before, after), "utf-8")
    (venv / ".installed").touch()
    return folder


def _what_the_reader_has(folder: Path) -> None:
    """Photos with a table of captions, and models, where the README's commands look for them."""
    world = folder / "data_tools/world/checkpoints"
    shutil.copytree(world / "sdxl", folder / "checkpoints/sdxl")
    shutil.copytree(world / "chinese_clip", folder / "checkpoints/chinese-clip")
    (folder / "photos").mkdir()
    with (folder / "photos/captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "en", "zh"])
        for number in range(8):
            colour, native = (("red", "红"), ("blue", "蓝"))[number % 2]
            Image.new("RGB", (80 + number, 64), colour).save(folder / f"photos/{number}.jpg")
            rows.writerow([f"{number}.jpg", f"a {colour} cat", f"一只{native}猫"])


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the project's git repository")
def test_the_readmes_commands_run_as_written_in_a_fresh_clone(clone: Path) -> None:
    _what_the_reader_has(clone)
    environment = os.environ | {
        "PATH": f"{clone / '.venv/bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone),  # the clone's packages, not those that this environment has installed
        "PYTEST_ARGS": "-q tests/test_errors.py",  # of `make test`, which runs before this test anyway
        "HF_HUB_OFFLINE": "1",
    }
    for command in commands((clone / "README.md").read_text("utf-8")):
        done = subprocess.run(
            ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    for made in ("runs/demo/report.html", "runs/sdxl-zh/adapter/config.json", "runs/sdxl-zh/report.html"):
        assert (clone / made).is_file(), made
