"""Every ``pea data`` command that reads tars goes through all of them, and names all that are damaged in one run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from stages.cli import main
from tests.corpus.tar_files import encoded, good_tar, write_tar
from tests.data_tools.corpus.dirt import pixels

DAMAGED = {"b": "the tar is truncated", "d": "the compressed tar is truncated", "g": "no such tar"}
DAMAGED |= {"e": "the tar is damaged, or is none"}
GOOD = ("a", "c", "f")


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven tars, of which four are damaged or not there."""
    folder = tmp_path_factory.mktemp("tars")
    for number, name in enumerate("abcf"):
        files = []
        for sample in range(5):
            document = {"captions": {"en": f"a cat {sample}", "zh": "一只猫"}, "url": f"u{name}{sample}"}
            image = encoded(pixels(size=(40, 32), seed=10 * number + sample))
            files += [(f"{sample}.png", image), (f"{sample}.json", json.dumps(document).encode())]
        write_tar(folder / f"{name}.tar", files)
    (folder / "b.tar").write_bytes((folder / "b.tar").read_bytes()[:9000])
    whole = good_tar(folder / "whole")
    (folder / "d.tar.gz").write_bytes(gzip.compress(whole.read_bytes())[:-700])
    (folder / "e.tar").write_bytes(b"no tar" * 1000)
    whole.unlink()
    (folder / "g.tar").symlink_to("nowhere")
    rows = [{"url": f"u{name}{sample}", "de": "eine Katze"} for name in "abcf" for sample in range(5)]
    (folder / "beside").mkdir()
    (folder / "beside/de.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


COMMANDS = {
    "pack": (("--out", "{out}"), "{out}/{name}.tar"),
    "clean": (("--out", "{out}"), "{out}/{name}.jsonl"),
    "route": (("--out", "{out}"), "{out}/{name}.jsonl"),
    "filter": (("--out", "{out}", "--min-side", "8"), "{out}/{name}.tar"),
    "sample": (("--out", "{out}", "--share", "1"), "{out}/{name}.tar"),
    "captions": (("{table}", "--by", "url", "--out", "{out}"), "{out}/{name}.jsonl"),
    "buckets": (("--side", "64", "--multiple", "8"), None),
    "check": ((), None),
    "card": (("--out", "{out}"), "{out}/card.html"),
}
QUICK = ("pack", "clean", "check")
"""One that writes tars, one that writes tables, and one that only reads."""


@pytest.mark.parametrize(
    "command", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in COMMANDS]
)
def test_all_damaged_tars_are_named_in_one_run_and_the_others_are_done(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words, result = COMMANDS[command]
    out = tmp_path / "out"
    given = [word.format(out=out, table=tars / "beside/de.jsonl") for word in words]
    places = [str(tars / "*.tar*")] if command in ("pack", "clean") else [str(tars)]
    if command == "captions":
        given, places = [given[0], "--corpus", *places, *given[1:]], []
    assert main(["data", command, *places, *given]) in (1, 2)
    said = capsys.readouterr()
    told = said.out + said.err
    for name, reason in DAMAGED.items():
        assert f"{name}.tar" in told, (name, told)
        assert reason in told, (reason, told)
    if result is not None:
        for name in GOOD:
            assert Path(result.format(out=out, name=name)).is_file(), name
        for name in DAMAGED:
            assert "{name}" not in result or not Path(result.format(out=out, name=name)).exists(), name


def test_a_mended_tar_is_all_that_the_next_run_does(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.tar").write_bytes((tars / f"{name}.tar").read_bytes())
    words = ["data", "pack", str(folder / "*.tar"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr()
    assert "tars that cannot be used" in told.out
    assert "b.tar: the tar is truncated" in told.err
    (folder / "b.tar").write_bytes((tars / "f.tar").read_bytes())
    assert main(words) == 0
    lines = capsys.readouterr().out
    assert lines.count("there already") == 2
    assert f"{tmp_path / 'out/b'}.tar: 5 of 5 packed" in lines


def test_duplicates_wait_for_a_damaged_tar_before_them(tars: Path, tmp_path: Path) -> None:
    """What stays of c depends on what b holds; in the end it is as if b had never been damaged."""
    folder = tmp_path / "tars"
    folder.mkdir()
    twin = (tars / "a.tar").read_bytes()
    for name, data in (("a", (tars / "f.tar").read_bytes()), ("b", twin[:9000]), ("c", twin)):
        (folder / f"{name}.tar").write_bytes(data)
    words = ["data", "filter", str(folder / "*.tar"), "--out", str(tmp_path / "out"), "--duplicates", "exact"]
    assert main(words) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["a.tar"]
    (folder / "b.tar").write_bytes(twin)
    assert main(words) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["a.tar", "b.tar"]


def test_tars_may_be_given_one_by_one_as_a_shell_does(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tars / f"{name}.tar") for name in GOOD]
    assert main(["data", "pack", *given, "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.tar")) == list(GOOD)
    assert main(["data", "pack", given[0], str(tars / "beside/de.jsonl"), "--out", str(tmp_path / "mixed")]) == 2
    assert "only if all are tars" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_called_by_all_that_it_could_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "pack", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere: neither a folder nor a table nor tars; got nothing there." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("{tars}/a.tar", "--table", "{tars}/beside/de.jsonl"), "--table"),
        (("{tars}/a.tar", "{tars}/c.tar", "--table", "{tars}/beside/de.jsonl"), "--table"),
        (("{tars}/a.tar", "--images", "{tars}"), "--images"),
        (("{tars}", "--images", "{tars}"), "--images"),
        (("{tars}/beside/de.jsonl", "--table", "{tars}/beside/de.jsonl"), "--table"),
    ],
)
def test_a_table_or_folder_that_would_not_be_looked_at_is_refused(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], option: str
) -> None:
    assert main(["data", "pack", *(word.format(tars=tars) for word in words), "--out", str(tmp_path / "out")]) == 2
    assert f"{option}: " in capsys.readouterr().err


def test_a_folder_of_tars_and_tables_is_not_taken_for_either(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    for name in ("a.tar", "beside/de.jsonl"):
        (folder / Path(name).name).write_bytes((tars / name).read_bytes())
    assert main(["data", "clean", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert (
        f"tars and tables in one folder; got a.tar and de.jsonl. Say which are meant by a pattern: {folder}/*.tar"
        in (capsys.readouterr().err)
    )
