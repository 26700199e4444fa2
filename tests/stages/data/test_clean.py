"""`pea data clean`: the original stays, counts add up, a second run changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.corpus.tables import open_table
from stages.cli import main
from tests.data_tools.corpus.test_captioned import write_tar

Capture = pytest.CaptureFixture[str]


def test_the_original_stays_and_counts_add_up(tmp_path: Path, capsys: Capture) -> None:
    captions = [{"en": "a &lt;cat&gt;", "zh": "猫"}, {"en": "a dog"}, {"en": "http://only.example/"}]
    files = {}
    for number, each in enumerate(captions):
        files |= {f"{number}.jpg": b"x", f"{number}.json": {"captions": each, "provenance": {"zh": "translation: x"}}}
    tar = write_tar(tmp_path / "a.tar", {**files, "9.jpg": b"x", "9.json": b"{"})
    before = tar.read_bytes()
    command = ["data", "clean", str(tar), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "3 samples with 4 captions: 2 captions unchanged, 1 changed, 1 with nothing left; 1 sample unusable" in said
    assert "entities                 1" in said
    assert tar.read_bytes() == before
    rows = [dict(row.values) for row in open_table(tmp_path / "out" / "a.jsonl").rows()]
    origin = {"provenance": {"zh": "translation: x"}}
    assert rows == [
        {
            "tar": "a",
            "key": "0",
            "captions": {"en": "a <cat>", "zh": "猫"},
            "original": {"en": "a &lt;cat&gt;"},
            **origin,
        },
        {"tar": "a", "key": "1", "captions": {"en": "a dog"}, **origin},
    ]
    made = (tmp_path / "out" / "a.jsonl").stat().st_mtime_ns
    assert main(command) == 0
    assert said.split("\n", 1)[1] == capsys.readouterr().out, "the same counts, from what is finished"
    assert (tmp_path / "out" / "a.jsonl").stat().st_mtime_ns == made
    again = ["data", "clean", str(tmp_path / "out" / "a.jsonl"), "--out", str(tmp_path / "again")]
    assert main(again) == 0
    assert "3 captions: 3 captions unchanged, 0 changed, 0 with nothing left" in capsys.readouterr().out
    assert main([*command, "--leave", "urls"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "x"), "--caption", "zh"]) == 2
    assert "LANGUAGE=FIELD" in capsys.readouterr().err
