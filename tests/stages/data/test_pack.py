"""``pea data pack``: what it says, what it refuses, and that its numbers add up."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.cli import main
from tests.data_tools.corpus.dirt import KINDS, Corpus, encoded


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    corpus = Corpus(tmp_path / "photos")
    for name in ("jpeg", "tiff", "missing file", "image that no row names", "hidden files", "capital extension"):
        corpus.folder.mkdir(exist_ok=True)
        KINDS[name](corpus, name.replace(" ", "-"))
    corpus.write_table(corpus.folder / "photos.csv", ";", "utf-8-sig")
    return corpus.folder


def test_everything_is_accounted_for(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pack", str(photos), "--out", str(tmp_path / "corpus")]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "caption in zh: caption_zh",
        f"{tmp_path}/corpus/corpus-00000.tar: 3 of 4 packed",
        "seen 4",
        "TIFF to PNG, without loss 1",
        "under a name spelled otherwise than in the table 1",
        "left out 1 listed in " + f"{tmp_path}/corpus/*.pack.json",
        "file_missing 1 no file of the folder is what the row names",
        "files in the folder 8",
        "that a row names 3",
        "that no row names 1",
        "hidden files 1",
        "left out: photos.csv:4: file_missing: missing-file-gone.jpg",
        "no row names: image-that-no-row-names.jpg",
    ):
        assert line in lines, line


def test_a_dry_run_packs_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pack", str(photos), "--out", str(tmp_path / "corpus"), "--dry-run"]) == 0
    assert not (tmp_path / "corpus").exists()
    assert "image: file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--map", "caption_zh"], "not a mapping of a column"),
        (["--map", "text=caption_zh"], "belong together"),
        (["--map", "zh=legende"], "no column legende; expected one of file, caption_zh"),
        (["--map", "image=watermark"], "nothing could be packed; got file_missing: 4"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["data", "pack", str(photos), "--out", str(tmp_path / "corpus"), *words]) == 2
    assert message in capsys.readouterr().err


def test_tars_are_not_written_over_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "in/a.txt").write_text("a cat")
    assert main(["data", "pack", str(tmp_path / "in"), "--out", str(tmp_path / "tars"), "--language", "en"]) == 0
    assert main(["data", "pack", str(tmp_path / "tars"), "--out", str(tmp_path / "tars")]) == 2
    assert "written over themselves" in capsys.readouterr().err
    again = ["data", "pack", str(tmp_path / "tars"), "--out", str(tmp_path / "again")]
    assert main([*again, "--rows-per-tar", "5"]) == 2 and not (tmp_path / "again").exists()
    assert "--rows-per-tar: tars are packed into as many tars" in capsys.readouterr().err
    for said in (": 1 of 1 packed", ": there already, 1 of 1 packed"):
        assert main(again) == 0
        assert said in capsys.readouterr().out
    assert main([*again, "--resize", "8"]) == 2
