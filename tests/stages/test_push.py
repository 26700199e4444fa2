"""`pea push`, against a hub on this machine; and three lines that draw from it in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages import push
from tests.loopback_hub import SHA, Hub, loopback_hub
from tests.pipeline.pipes import make_parts

PUSH = "import sys; from stages.cli import main; sys.exit(main(['push', *sys.argv[1:]]))"
THREE_LINES = """
import sys
from diffusers import StableDiffusionXLPipeline
from pea.pipeline import PEAPrompt
pipe = StableDiffusionXLPipeline.from_pretrained("org/sd")
pea = PEAPrompt.from_pretrained("org/sd-zh")
pea.attach(pipe)
import numpy as np, torch
def draw(*prompt, **embeds):
    options = dict(num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(1))
    return pipe(*prompt, **embeds, **options).images
assert np.array_equal(draw("一只猫"), draw(**pea("一只猫", negative_prompt=None)))
print(pea.encoder.record["name"])
"""
CARD_AND_COMMAND = """
import re, sys
from stages.cli import main
[code] = re.findall(r"```python\\n(.*?)```", open(sys.argv[1], encoding="utf-8").read(), re.DOTALL)
exec(code)
print(image.size)
print(pea.push_to_hub("org/copy", licence="mit"))
sys.exit(main(["generate", "一只猫", "--adapter", "org/sd-zh", "--steps", "1"]))
"""


def python(code: str, folder: Path, hub: Hub | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own in an empty folder: huggingface_hub reads its environment once."""
    folder.mkdir(exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    env |= {"HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"HF_TOKEN": "hf_test", "PYTHONPATH": str(Path(__file__).parents[2])}
    env |= {"HF_ENDPOINT": hub.url} if hub else {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_parts(tmp_path_factory.mktemp("parts"), "sdxl")


@pytest.fixture
def hub(parts: Path, tmp_path: Path) -> Iterator[Hub]:
    with loopback_hub({"org/zh": parts / "zh", "org/sd": parts / "teacher"}, tmp_path / "uploads") as hub:
        yield hub


def words(parts: Path, *more: str) -> list[str]:
    return [str(parts / "adapter"), "org/sd-zh", "--encoder", "org/zh", "--base", "org/sd", "--licence", "mit", *more]


@pytest.mark.slow
def test_a_dry_run_shows_everything_and_uploads_nothing(parts: Path, hub: Hub, tmp_path: Path) -> None:
    done = python(PUSH, tmp_path / "work", hub, *words(parts, "--dry-run"))
    assert done.returncode == 0, done.stderr
    for shown in ("config.json", "bytes  README.md", "license: mit", "base_model: org/sd", "nothing was uploaded"):
        assert shown in done.stdout
    assert not [line for line in hub.asked if line.startswith("POST")]
    assert not [line for line in hub.asked if "org/sd/" in line and line.endswith(".safetensors")], (
        "its shape is enough"
    )
    offline = python(PUSH, tmp_path / "work", None, *words(parts, "--dry-run"))
    assert offline.returncode == 0 and offline.stdout == done.stdout


@pytest.mark.slow
def test_three_lines_from_an_empty_folder(parts: Path, hub: Hub, tmp_path: Path) -> None:
    pushed = python(PUSH, tmp_path / "work", hub, *words(parts))
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.strip().endswith(f"{hub.url}/org/sd-zh")
    files = {path.name for path in (tmp_path / "uploads/org/sd-zh").iterdir()}
    assert files == {"config.json", "diffusion_pytorch_model.safetensors", "README.md"}
    kept = json.loads((tmp_path / "uploads/org/sd-zh/config.json").read_text())
    assert kept["encoder"]["name"] == f"org/zh@{SHA}" and kept["base_model"]["name"] == "org/sd@main"
    drawn = python(THREE_LINES, tmp_path / "empty", hub)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.strip() == f"org/zh@{SHA}"
    again = python(THREE_LINES, tmp_path / "empty", None)
    assert again.returncode == 0, "offline, from the cache: " + again.stderr
    card = str(tmp_path / "uploads/org/sd-zh/README.md")
    used = python(CARD_AND_COMMAND, tmp_path / "empty", hub, card)
    assert used.returncode == 0 and used.stdout.startswith("(16, 16)\n"), used.stderr
    assert (tmp_path / "empty/generated/000-一只猫.png").is_file()
    assert (
        f"{hub.url}/org/copy" in used.stdout
        and {path.name for path in (tmp_path / "uploads/org/copy").iterdir()} == files
    )


@pytest.mark.slow
def test_a_hub_that_refuses_is_one_line(parts: Path, tmp_path: Path) -> None:
    with loopback_hub({"org/zh": parts / "zh", "org/sd": parts / "teacher"}) as hub:
        done = python(PUSH, tmp_path / "work", hub, *words(parts))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("pea: error: org/sd-zh: cannot publish on the hub") and "hf auth login" in done.stderr


@pytest.mark.parametrize("wrong", [["a", "b"], ["a", "org/x", "--licence", "My Licence"], ["a", "org/x/y"]])
def test_names_are_checked_at_once(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        push.main(wrong)
    assert "is not" in capsys.readouterr().err


def test_a_folder_without_an_adapter_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push.main([str(tmp_path), "org/x", "--dry-run"]) == 2
    assert "no adapter here" in capsys.readouterr().err
