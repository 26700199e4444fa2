"""Tables beside the small world's corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_tools.world.corpora import write_corpora
from data_tools.world.languages import ENGLISH_DESCRIPTIONS
from data_tools.world.tables import main
from pea.corpus.caption_tables import CaptionTables


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_captions_without_images_and_descriptions_of_which_a_third_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpora(tmp_path, num_parallel=6, languages=["zh"], seed=3, per_concept=6)
    assert main(["--corpora", str(tmp_path)]) == 0
    assert "wrote captions.jsonl, described-zh, described-wrong-zh" in capsys.readouterr().out
    texts = _rows(tmp_path / "captions.jsonl")
    assert [row["id"] for row in texts] == [f"{number:06d}" for number in range(6)]
    assert all(set(row["captions"]) == {"en", "zh", "ja", "ko", "ru", "it"} for row in texts)
    right, wrong = (
        _rows(tmp_path / name / "culture-zh-00000.jsonl") for name in ("described-zh", "described-wrong-zh")
    )
    assert len(right) == len(wrong) == 42
    assert all(
        any(words in row["captions"]["described_en"] for words in ENGLISH_DESCRIPTIONS.values()) for row in right
    )
    differing = [pair for pair in zip(right, wrong, strict=True) if pair[0] != pair[1]]
    assert len(differing) == 14
    for good, bad in differing:
        named = [
            {each for each in ENGLISH_DESCRIPTIONS.values() if each in row["captions"]["described_en"]}
            for row in (good, bad)
        ]
        assert named[0] and named[1] and named[0] != named[1]
    tables = CaptionTables([str(tmp_path / "described-zh")])
    assert len(tables.of_tar("culture-zh-00000")) == 42
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    assert main(["--corpora", str(tmp_path)]) == 0
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}


def test_without_corpora_there_is_nothing_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--corpora", str(tmp_path)]) == 2
    assert "no corpus here" in capsys.readouterr().err and not list(tmp_path.iterdir())
