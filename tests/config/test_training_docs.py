"""docs/training.md has every option, and README.md every method."""

from __future__ import annotations

import re
from pathlib import Path

from pea.config import TrainConfig, valid_names

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/training.md").read_text("utf-8")


def test_every_option_of_the_trainer_has_a_line() -> None:
    named = set(re.findall(r"`((?:train|student|cache)\.[a-z_0-9]+)", TEXT))
    assert {f"train.{name}" for name in TrainConfig.model_fields} <= named
    assert named <= set(valid_names())
    assert not re.search(r"\| [A-Z_]{3,} \|", TEXT), "a cell that is still to be filled"


def test_every_method_has_a_line() -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("## Training and comparing methods")[1].split("\n## ")[0]
    assert {path.stem for path in (ROOT / "configs/methods").glob("*.yaml")} == set(
        re.findall(
            r"`([a-z_]+)`", "\n".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
        )
    )
