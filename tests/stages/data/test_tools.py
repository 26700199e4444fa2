"""``pea data filter``, ``sample``, ``buckets`` and ``check`` on small corpora."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pea.cache.cards import read_card
from pea.corpus.samples import Sample, read_tar
from pea.storage.digests import sha256_text
from pea.storage.location import Location
from stages.cli import main
from stages.data.sample_run import is_chosen
from tests.corpus.tar_files import captions, encoded, kept, picture, write_tar
from tests.data_tools.corpus.dirt import pixels


def _document(number: int) -> bytes:
    texts = {"en": f"a cat number {number}", "zh": "猫"}
    return json.dumps({"captions": texts, "score": number, "file": f"{number}.jpg"}).encode()


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tars of ten samples each; the second has the images of the first."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for tar in ("a", "b"):
        files = []
        for number in range(10):
            files += [
                (f"{number}.png", encoded(pixels(size=(40, 32), seed=number))),
                (f"{number}.json", _document(number)),
            ]
        write_tar(folder / f"{tar}.tar", files)
    return folder


def _out(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_funnel_adds_up_and_a_second_run_goes_on(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "filter", str(tars / "*.tar"), "--out", str(tmp_path / "out"), "--where", "score<8"]
    words += ["--duplicates", "perceptual", "--min-caption", "3"]
    assert main(words) == 0
    first = _out(capsys)
    for line in (
        "all samples 20",
        "the same file as another -8 12",
        "not score < 8 -4 8",
        "taken out: 16 captions below 3 characters",
        "a: 8 of 10 kept",
        "b: 0 of 10 kept",
    ):
        assert line in first, line
    assert kept(tmp_path / "out/a.tar") == [str(number) for number in range(8)]
    assert not (tmp_path / "out/b.tar").exists()
    (tmp_path / "out/b.part.json").unlink()
    assert main(words) == 0
    assert [line.replace("there already, ", "") for line in _out(capsys)] == first
    assert main([*words, "--min-side", "8"]) == 2
    assert "this part was made otherwise" in capsys.readouterr().err


def test_what_is_kept_keeps_its_bytes_and_other_fields(tars: Path, tmp_path: Path) -> None:
    assert main(["data", "filter", str(tars / "a.tar"), "--out", str(tmp_path / "out"), "--min-side", "8"]) == 0
    assert (tmp_path / "out/a.tar").read_bytes() == (tars / "a.tar").read_bytes()
    assert main(["data", "filter", str(tars / "a.tar"), "--out", str(tmp_path / "en"), "--min-caption", "3"]) == 0
    first = next(iter(read_tar(tmp_path / "en/a.tar", {"en": "captions.en", "zh": "captions.zh", "file": "file"})))
    assert isinstance(first, Sample)
    assert first.captions == {"en": "a cat number 0", "file": "0.jpg"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no rule is given"),
        (("--where", "score<0"), "no sample is left"),
        (("--where", "score"), "not a rule for a column"),
        (("--prompts", "nowhere.jsonl"), "cannot read the prompts"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert main(["data", "filter", str(tars / "*.tar"), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_written_over_itself(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "filter", str(tars / "*.tar"), "--out", str(tars), "--min-side", "8"]) == 2
    assert "written over itself" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pack", "filter", "sample", "clean", "card", "prompts"])
def test_a_file_in_the_place_of_the_folder_is_named(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "file").write_text("text")
    words = {"filter": ["--min-side", "8"], "sample": ["--share", "1"], "pack": ["--language", "en"]}.get(command, [])
    source = [] if command == "prompts" else [str(tars / "a.tar")]
    assert main(["data", command, *source, "--out", str(tmp_path / "file"), *words]) == 2
    assert f"{tmp_path}/file: a file lies where a folder is needed." in capsys.readouterr().err


def test_a_sample_is_the_same_every_time_and_a_part_of_a_larger_one(tars: Path, tmp_path: Path) -> None:
    chosen = {}
    for share in ("0.3", "0.6"):
        assert main(["data", "sample", str(tars / "*.tar"), "--out", str(tmp_path / share), "--share", share]) == 0
        chosen[share] = {f"{path.stem}/{key}" for path in (tmp_path / share).glob("*.tar") for key in kept(path)}
        assert chosen[share] == {f"{t}/{n}" for t in "ab" for n in range(10) if is_chosen(f"{t}/{n}", float(share))}
    assert chosen["0.3"] < chosen["0.6"]
    assert abs(sum(is_chosen(f"t/{n}", 0.01) for n in range(100_000)) - 1000) < 120
    assert main(["data", "sample", str(tars / "*.tar"), "--out", str(tmp_path / "none"), "--share", "0.0001"]) == 2
    with pytest.raises(SystemExit):  # 50 %, as some would write it
        main(["data", "sample", str(tars / "*.tar"), "--out", str(tmp_path / "all"), "--share", "50"])


def test_buckets(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "buckets", str(tars / "*.tar"), "--side", "64", "--multiple", "8"]) == 0
    lines = _out(capsys)
    assert lines[1].startswith("56x72 20 2.8% 20 ####")
    assert "20 images; 2.8% of them is cut off, 20.0% with the square alone" in lines
    assert lines[-1] == "buckets: [[56, 72]]"


def test_check_of_texts_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{number},a cat {number},{'' if number % 3 else '猫'}\n" for number in range(9)]
    (tmp_path / "t.csv").write_text("id,en,zh\n" + "".join(lines), "utf-8")
    assert main(["data", "check", str(tmp_path / "t.csv")]) == 0
    out = capsys.readouterr().out
    assert "1 part of texts without images" in out and "9 of 9 rows can be used" in out
    assert dict(line.split() for line in out.splitlines() if line[:2] in ("en", "zh")) == {"en": "9", "zh": "3"}
    (tmp_path / "u.txt").write_text("text\tübersetzt\na cat\tKatze\n\tHund\n", "utf-8")
    assert main(["data", "check", str(tmp_path / "u.txt"), "--caption", "en=text", "--caption", "de=übersetzt"]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 rows can be used" in out and "left out: u-00000/row-3: caption_missing: en" in out
    assert main(["data", "check", str(tmp_path / "u.txt")]) == 2
    assert "no column for en" in capsys.readouterr().err


def test_check(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tars / "*.tar")]) == 0
    assert any(line.startswith("2 tars, ") and "20 of 20 samples can be used" in line for line in _out(capsys))
    write_tar(tars / "c.tar", [("k.png", encoded(picture())[:-40]), ("k.json", captions(en="a"))])
    shutil.copy(tars / "a.tar", tars / "d.tar")
    with (tars / "d.tar").open("r+b") as file:
        file.truncate(9000)
    (tars / "a.tar.json").write_text('{"format": "pea-tar", "format_version": 1, "num_samples": 11}')
    assert main(["data", "check", str(tars / "*.tar")]) == 1
    lines = _out(capsys)
    assert any(line.startswith("left out: c/k: image_undecodable") for line in lines)
    assert any(line.startswith("damaged: ") and "d.tar" in line and "truncated" in line for line in lines)
    assert any(line.startswith("damaged: ") and "not what is said beside it" in line for line in lines)


def test_check_says_what_a_parallel_corpus_would_lack(
    tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(tars / "*.tar")]) == 0
    assert "note: " not in capsys.readouterr().out
    write_tar(tars / "c.tar", [("k.png", encoded(picture())), ("k.json", captions(ja="猫"))])
    assert main(["data", "check", str(tars / "*.tar")]) == 0
    assert "note: 1 of 21 samples have no caption in en; a parallel corpus" in capsys.readouterr().out
    assert main(["data", "check", str(tars / "c.tar")]) == 0
    assert "note: no caption in en: this can be a culture corpus" in capsys.readouterr().out


def test_the_card_says_what_is_there_and_shows_it_without_harm(tars: Path, tmp_path: Path) -> None:
    bad = json.dumps({"captions": {"en": "<script>alert(1)</script> | \x1b[31m"}}).encode()
    write_tar(tars / "c.tar", [("k.png", encoded(picture())), ("k.json", bad), ("l.png", b""), ("l.json", bad)])
    words = ["data", "card", str(tars / "*.tar"), "--samples", "40", "--title", "Cats"]
    for out in ("one", "two"):
        assert main([*words, "--out", str(tmp_path / out)]) == 0
    page, text = ((tmp_path / "one" / name).read_text("utf-8") for name in ("card.html", "card.md"))
    assert page == (tmp_path / "two/card.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 21
    assert "<script>alert" not in page and "\x1b" not in page
    for line in ("21 of 22 samples can be used, in 3 tars", "| en | 21 |", "| zh | 20 |", "| image_empty | 1 |"):
        assert line in text, line


def test_the_card_for_manifests_says_the_same(tars: Path, tmp_path: Path) -> None:
    words = ["data", "card", str(tars / "*.tar"), "--out", str(tmp_path), "--samples", "0", "--title", "Cats"]
    assert main([*words, "--licence", "CC-BY-4.0", "--source", "https://example.org <b>"]) == 0
    card = read_card(Location.parse(tmp_path))
    assert card is not None and (card["licence"], card["source"]) == ("CC-BY-4.0", "https://example.org <b>")
    assert (card["num_usable"], card["num_samples"], card["num_tars"]) == (20, 20, 2)
    assert card["languages"] == {"en": 20, "zh": 20} and card["left_out"] == {}
    text, page = ((tmp_path / name).read_text("utf-8") for name in ("card.md", "card.html"))
    assert [card["markdown_sha256"], card["html_sha256"]] == [sha256_text(text), sha256_text(page)]
    assert "* licence: CC-BY-4.0" in text and "source: https://example.org &lt;b&gt;" in page
    assert main([*words, "--licence", "x" * 201]) == 2


def test_a_damaged_tar_is_on_the_card(tars: Path, tmp_path: Path) -> None:
    with (tars / "a.tar").open("r+b") as file:
        file.truncate(9000)
    assert main(["data", "card", str(tars / "*.tar"), "--out", str(tmp_path), "--samples", "0"]) == 1
    assert "* damaged: " in (tmp_path / "card.md").read_text("utf-8")


def test_samples_without_a_size_are_counted(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tars / "c.tar", [("0.png", b"none"), ("0.json", _document(0)), ("1.json", _document(1))])
    assert main(["data", "buckets", str(tars / "*.tar"), "--side", "64"]) == 0
    out = _out(capsys)
    assert any(line.startswith("20 images;") for line in out)
    assert "no image of which the size can be read: 2 samples; `pea data check` names them" in out


@pytest.mark.parametrize("words", [["clean", "--out"], ["route", "--out"], ["card", "--out"], ["check"]])
def test_a_corpus_without_a_sample_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / "empty.tar").write_bytes(bytes(10_240))
    command, *out = words
    code = main(["data", command, str(tmp_path / "empty.tar"), *out, *([str(tmp_path / "out")] if out else [])])
    assert code == (2 if command in ("clean", "route") else 1)
    assert code == 1 or "the corpus has no samples" in capsys.readouterr().err


def test_buckets_that_no_side_allows_are_refused(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "buckets", str(tars / "*.tar"), "--side", "64", "--multiple", "100"]) == 2
    assert "--multiple: no bucket has such a side; expected at most 64; got 100" in capsys.readouterr().err


def test_captions_that_are_looked_for_in_the_wrong_place_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("id,text\n1,a cat\n")
    words = ["data", "clean", str(tmp_path / "t.csv"), "--out"]
    assert main([*words, str(tmp_path / "out")]) == 2
    assert "not one caption; got 1 sample without any in captions" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "right"), "--caption", "en=text"]) == 0
