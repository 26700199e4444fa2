"""Prompt files: what is wrong with one is said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.errors import EvaluationError
from pea.evaluation.prompts import read_prompts, texts_in
from stages.command.console import Console
from tests.prompt_files import write_prompts

QUIET = Console(quiet=True)


ROOT = Path(__file__).parents[2]
WORLD = ROOT / "data_tools/world/checkpoints"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no prompts"),
        ("{", "line 1: not a prompt"),
        ('{"id": 1}', "line 1: not a prompt"),
        ('{"id": "a", "captions": {}, "attributes": {}}\n' * 2, "the same id"),
    ],
)
def test_prompts_are_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    with pytest.raises(EvaluationError, match="cannot read"):
        read_prompts(path)
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_prompts(path)


def test_a_missing_caption_names_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, 2, translation=False)
    with pytest.raises(EvaluationError, match=r"no caption named 'ja'.*p0\. There are captions in en, zh; leave"):
        texts_in(read_prompts(path, limit=1), "ja", path)
