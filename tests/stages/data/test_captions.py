"""``pea data captions``: every row and every sample is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pea.corpus.caption_tables import CaptionTables
from stages.cli import main
from tests.cache_helpers import CacheMaker, identity
from tests.corpus.tar_files import captions, encoded, picture, write_tar


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    folder = tmp_path / "tars"
    folder.mkdir()
    for tar in ("t0", "t1"):
        files = []
        for number in range(3):
            document = json.loads(captions(en="a cat")) | {"url": f"http://x/{number}", "file": f"{tar}/{number}.jpg"}
            key = f"{tar}-{number}"
            files += [(f"{key}.png", encoded(picture())), (f"{key}.json", json.dumps(document).encode())]
        write_tar(folder / f"{tar}.tar", files)
    return folder


def _run(tmp_path: Path, table: str, *words: str) -> int:
    path = tmp_path / "table.csv"
    path.write_text(table, "utf-8")
    places = [] if "--corpus" in words else ["--corpus", str(tmp_path / "tars/*.tar")]
    return main(["data", "captions", str(path), "--out", str(tmp_path / "out"), *places, *words])


def test_rows_that_name_no_sample_are_counted_whatever_they_say(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ('"t0-0"', '["t0-1"]', '"\\ud800"', "null", "true", '" "', '"t1-1"')
    path = tmp_path / "table.jsonl"
    path.write_text("".join(f'{{"key": {name}, "de": "eine Katze"}}\n' for name in names))
    words = ["--corpus", str(tars / "*.tar"), "--out", str(tmp_path / "out")]
    assert main(["data", "captions", str(path), *words]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert {"rows of the table: 7", "with captions: 2, of 2 samples", "name no sample: 5"} <= set(lines)


def test_odd_codes_of_languages_are_said(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in LAION-multi's column LANGUAGE; what is learnt is what ``student.language`` names."""
    table = "key,TEXT,LANGUAGE\nt0-0,ねこ,jp\nt0-1,猫,zh-cn\nt0-2,猫,zh\nt1-0,猫,und\n"
    assert _run(tmp_path, table) == 0
    notes = [line.removeprefix("note: ") for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert [note.split(" ")[0] for note in notes] == ["jp", "und", "zh,"]
    assert main(["data", "pack", str(tmp_path / "tars"), "--out", str(tmp_path / "jp"), "--map", "jp=captions.en"]) == 0
    assert "note: jp is not the usual code of a language; ja, if that is meant" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "jp/*.tar")]) == 0
    assert "note: jp is not the usual code" in capsys.readouterr().out


def test_rows_and_samples_add_up(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = "tar;key;caption_de\nt0;t0-1;eins\nt1;t1-0;null\nt1;t1-2;zwei\nt1;t1-2;nochmal\nt0;t0-9;fort\n"
    table += "t0;t0-0;\n;x;y\nt0;t0-2\n"
    assert _run(tmp_path, table) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for line in (
        "sample: tar and key",
        "caption in de: caption_de",
        "rows of the table: 8",
        "with captions: 5, of 4 samples",
        "cannot be read: 1",
        "name no sample: 1",
        "have no caption: 1",
        "captions of a sample and language that had one already (the first counts): 1",
        "of samples that the corpus does not have: 1 (t0/t0-9)",
        "samples of the corpus: 6 in 2 tars",
        "with a caption here: 3; without: 3",
        "in de: 3",
    ):
        assert line in lines, line
    tables = CaptionTables([tmp_path / "out"])
    assert tables.of_tar("t0") == {"t0-1": {"de": "eins"}}
    assert tables.of_tar("t1") == {"t1-0": {"de": "null"}, "t1-2": {"de": "zwei"}}
    assert not (tmp_path / "out/.index.sqlite").exists()


def test_rows_of_several_languages_come_together(tars: Path, tmp_path: Path) -> None:
    table = "key,text,lang\nt0-1,eins,de\nt0-1,un,fr\nt1-1,uno,it\n"
    assert _run(tmp_path, table, "--format", "parquet") == 0
    assert CaptionTables([tmp_path / "out"]).of_tar("t0") == {"t0-1": {"de": "eins", "fr": "un"}}


def test_a_field_of_the_json_can_name_the_sample(tars: Path, tmp_path: Path) -> None:
    assert _run(tmp_path, "url,de\nhttp://x/1,eins\n", "--by", "url") == 0
    tables = CaptionTables([tmp_path / "out"])
    assert (tables.of_tar("t0"), tables.of_tar("t1")) == ({"t0-1": {"de": "eins"}}, {"t1-1": {"de": "eins"}})


def test_a_cache_can_stand_for_its_tars(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache.fill(identity())
    assert _run(tmp_path, "id,de\na/a-24x32-0,eins\n", "--corpus", str(cache.directory)) == 0
    assert CaptionTables([tmp_path / "out"]).of_tar("a") == {"a-24x32-0": {"de": "eins"}}
    assert _run(tmp_path, "url,de\nx,eins\n", "--corpus", str(cache.directory), "--by", "url") == 2


@pytest.mark.parametrize(
    ("table", "words", "message"),
    [
        ("key,de\nanother,eins\n", (), "not one caption is of a sample of the corpus; expected names as t0-0, t0-1"),
        (
            "photo,de\nt0-1,eins\n",
            (),
            "no column names the sample; expected columns tar and key, or id, or key; got photo",
        ),
        ("key,de\nt0-1,eins\n", ("--by", "photo=file"), "no column photo; expected one of key, de"),
        ("key,text\nt0-1,eins\n", (), "nothing says in which language the column text is"),
        ("key,de\nt0-1,eins\n", ("--map", "fr=french"), "no column french"),
    ],
)
def test_what_cannot_be_matched_is_an_error(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, words: tuple[str, ...], message: str
) -> None:
    assert _run(tmp_path, table, *words) == 2
    assert message in capsys.readouterr().err


def test_a_key_of_several_tars_means_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tars").mkdir()
    for tar in ("t0", "t1"):
        write_tar(tmp_path / f"tars/{tar}.tar", [("k.png", encoded(picture())), ("k.json", captions(en="a"))])
    assert _run(tmp_path, "key,de\nk,eins\n") == 2
    assert "1 key of several tars; got k" in capsys.readouterr().err
