"""The schema that editors use says what the reader of configurations says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stages.cli import main
from stages.schema import schema

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if path.read_text("utf-8").startswith("# yaml-language-server: ")
]


def problems(content: Any) -> list[str]:
    checker = jsonschema.Draft202012Validator(schema())
    return [error.message for error in checker.iter_errors(content)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_shipped_configuration_names_the_schema_and_fits_it(path: Path) -> None:
    place = path.read_text("utf-8").splitlines()[0].partition("$schema=")[2]
    assert (path.parent / place).resolve() == ROOT / "docs/reference/config.schema.json"
    assert problems(yaml.safe_load(path.read_text("utf-8"))) == []


def test_there_are_such_files() -> None:
    assert {"demo.yaml", "sd15.yaml", "sdxl.yaml"} <= {path.name for path in FILES}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cash": {}},
        {"train": {"stepps": 3}},
        {"train": {"steps": "many"}},
        {"cache": {"sketch": {"kind": "unheard of"}}},
        {"cache": {"caption_drop_rate": 1.5}},
    ],
)
def test_what_the_reader_refuses_does_not_fit(wrong: dict[str, Any]) -> None:
    assert problems(wrong)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
