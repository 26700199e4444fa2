"""What is wrong with a configuration or an option is said before libraries are imported that take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pea.errors import DeviceError
from stages.cli import COMMANDS
from stages.command.device import pick_device

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "diffusers", "transformers", "accelerate", "matplotlib", "zarr", "tensorstore", "PIL")
CONFIGURED = {
    "run": ["pipeline.yaml"], "plan": [], "rd": [], "cache": [], "train": [], "sweep": ["configs/methods"],
    "search": ["configs/searches/methods.yaml"], "eval": [], "generate": ["cat"], "report": [], "doctor": [],
    "status": [], "inspect": ["verify"], "rate": ["page"],
}  # fmt: skip
"""Commands that read a configuration, with the words that they need beside it."""
WITHOUT = ("init", "data", "app", "push", "convert", "import", "schema", "completion")
WRONG_CONFIGURATIONS = (["--config", "no/such.yaml"], ["--config", "configs/demo.yaml", "evaluate.device=gpu"])
WRONG_OPTIONS = (
    ["run", "no/such.yaml"],
    ["sweep", "no/such.yaml"],
    ["sweep", "configs/methods", "--seeds", "one"],
    ["search", "no/such.yaml"],
    ["rd", "--config", "configs/demo.yaml", "--records", "none"],
    ["generate", "--adapter", "a", "--config", "configs/demo.yaml", "cat"],
    ["generate", "--adapter", "a", "--size", "big", "cat"],
    ["app", "--adapter", "a", "--device", "gpu"],
    ["push", "a", "no-organisation"],
    ["convert", "a.pt", "--out", "b", "--max-tokens", "0"],
    ["inspect", "info", "no/such/cache"],
    ["data", "translate", "c", "--out", "o", "--model", "m", "--from", "en", "--to", "en"],
    ["data", "translate", "c", "--out", "o", "--model", "m", "--from", "en=", "--to", "zh"],
    ["data", "translate", "c", "--out", "o", "--model", "m", "--from", "en", "--to", "zh", "--device", "gpu"],
    ["data", "translate", "c", "--out", "o", "--model", "m", "--from", "en", "--to", "zh", "--caption", "zh"],
    ["data", "describe", "c", "--out", "o", "--model", "m", "--device", "cuda:x"],
    ["data", "describe", "c", "--out", "o", "--model", "m", "--caption", "zh"],
)
SCRIPT = """
import json, sys
from stages.cli import main
for words in json.loads(sys.argv[1]):
    try: code = main(words)
    except SystemExit as stopped: code = stopped.code
    if code != 2: sys.exit(f"pea {words} was not refused: {code}")
    heavy = set(json.loads(sys.argv[2])) & set(sys.modules)
    if heavy: sys.exit(f"pea {words} imports {heavy}")
print("light")
"""


def test_every_command_is_known_to_read_a_configuration_or_not() -> None:
    assert sorted([*CONFIGURED, *WITHOUT]) == sorted(COMMANDS)


def test_a_refusal_comes_without_heavy_libraries() -> None:
    """In one process: what one command has imported would still be there at the next one's end."""
    cases = [[name, *words, *wrong] for wrong in WRONG_CONFIGURATIONS for name, words in CONFIGURED.items()]
    cases += WRONG_OPTIONS
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(cases), json.dumps(HEAVY)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == "light\n", done.stderr


def test_a_gpu_that_is_not_there_is_named() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match=r"evaluate\.device: no such device .*; got cuda:99, beside "):
        pick_device("cuda:99", "evaluate.device")
