"""``pea data prompts``: copies the prompt sets, and overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.prompt_sets import FOLDER, PROMPT_SETS
from pea.evaluation.prompts import read_prompts
from stages.cli import main


def test_the_sets_and_their_card_are_copied_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["data", "prompts", "--out", str(tmp_path / "new" / "prompts")]) == 0
    copies = sorted(path.name for path in (tmp_path / "new" / "prompts").iterdir())
    assert copies == sorted(["README.md", *(f"{name}.jsonl" for name in PROMPT_SETS)])
    for name in copies:
        assert (tmp_path / "new" / "prompts" / name).read_bytes() == (FOLDER / name).read_bytes()
    assert len(read_prompts(tmp_path / "new" / "prompts" / "general.jsonl")) == 200
    assert "general in " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["general.jsonl", "README.md"])
def test_a_file_of_somebody_else_stays_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine", "utf-8")
    assert main(["data", "prompts", "--out", str(tmp_path)]) == 2
    assert "another file has the name of a prompt set's" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text("utf-8") == "mine"
