"""The generated pages are what their sources say today."""

from __future__ import annotations

import argparse
import re

import pytest

from pea.config import TrainConfig, valid_names
from pea.corpus.samples import REASONS
from stages import reference
from stages.cli import COMMANDS
from stages.reference_pages import commands
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


@pytest.mark.parametrize("file", ["settings.md", "commands.md", "drop_reasons.md", "config.schema.json"])
def test_committed_pages_are_current(file: str, pages: dict[str, str]) -> None:
    committed = (ROOT / reference.FOLDER / file).read_text("utf-8")
    assert committed == pages[file], f"docs/reference/{file} is not what its sources say: run `make reference`"


def test_every_setting_has_a_line(pages: dict[str, str]) -> None:
    shown = re.findall(r"^\| `([\w.]+)` \|", pages["settings.md"], re.MULTILINE)
    assert [name for name in valid_names() if name not in shown and name.rpartition(".")[2] not in shown] == []
    assert {"evaluate.grid.samplers.NAME.lora", "storage.NAME.endpoint"} <= set(shown), "sections in maps"
    assert [name for name in TrainConfig.model_fields if f"train.{name}" not in shown] == []


def test_every_command_and_reason_has_a_line(pages: dict[str, str]) -> None:
    assert [name for name in COMMANDS if f"\n## pea {name}\n" not in pages["commands.md"]] == []
    assert [name for name, text in REASONS.items() if f"| `{name}` | {text} |" not in pages["drop_reasons.md"]] == []


def test_an_argument_says_what_it_needs_and_defaults_to() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="where to")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes")
    parser.add_argument("--kind", choices=("a", "b"), required=True, help="which")
    parser.add_argument("--set", action="append", metavar="X", help="one")
    assert [commands.row(action) for action in parser._actions[1:]] == [
        ("`FOLDER`", "where to (required)"),
        ("`--jobs N`", "processes (default: 2)"),
        (r"`--kind a\|b`", "which (required)"),
        ("`--set X`", "one; can be given several times"),
    ]
