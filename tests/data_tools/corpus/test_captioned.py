"""Captions unit by unit: of tars without their images, of tables in parts; nothing is lost unsaid."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_tools.corpus.captioned import ALL_CAPTIONS, Captioned, Unusable, units_of
from pea.errors import CorpusError


def write_tar(path: Path, files: Mapping[str, bytes | dict[str, Any]]) -> Path:
    """A tar of these files, in their order; a dict becomes a json."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_tars_are_read_without_their_images(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "a.tar",
        {
            "1.jpg": b"never decoded",
            "1.json": {
                "captions": {"en": "a cat", "zh": "猫", "ja": ""},
                "provenance": {"zh": "translation: x"},
                "s": 0.5,
            },
            "2.png": b"x",
            "2.json": b"{",
            "3.json": {"captions": {"en": "no image"}},
            "4.jpg": b"no json",
            "5.jpg": b"x",
            "5.json": {"captions": {"en": 5}},
            "6.jpg": b"x",
            "6.json": {"other": 1},
        },
    )
    [unit] = units_of([str(tar)], 10)
    found = list(unit.rows(ALL_CAPTIONS, ["s"]))
    assert found[0] == Captioned("a", "1", {"en": "a cat", "zh": "猫"}, {"zh": "translation: x"}, {"s": 0.5})
    reasons = {each.key: each.reason for each in found if isinstance(each, Unusable)}
    assert reasons == {"2": "json_unreadable", "3": "image_missing", "4": "json_missing", "5": "caption_not_text"}
    assert found[-1] == Captioned("a", "6", {})
    assert unit.name == "a" and str(tar.stat().st_size) in unit.source


def test_a_damaged_tar_is_an_error(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.jpg": b"x", "1.json": {"captions": {"en": "a"}}})
    tar.write_bytes(tar.read_bytes()[:1500])
    [unit] = units_of([str(tar)], 10)
    with pytest.raises(CorpusError):
        list(unit.rows(ALL_CAPTIONS))


def test_tables_are_cut_into_parts(tmp_path: Path) -> None:
    table = tmp_path / "some.jsonl"
    rows: list[object] = [{"tar": "a", "key": str(n), "captions": {"en": f"cat {n}"}} for n in range(5)]
    rows += [
        {"tar": "a", "captions": {"en": "no key"}},
        "no object",
        {"id": "t1", "caption_en": "text", "captions": None},
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    units = list(units_of([str(table)], 3))
    assert [unit.name for unit in units] == ["some-00000", "some-00001", "some-00002"]
    found = [row for unit in units for row in unit.rows(ALL_CAPTIONS)]
    assert len(found) == len(rows), "every row has an outcome"
    assert [row.key for row in found[:5]] == list("01234")
    assert [row.reason for row in found if isinstance(row, Unusable)] == ["key_missing", "row_unreadable"]
    assert found[-1] == Captioned("", "t1", {}) and found[-1].names == {"id": "t1"}
    [*_, last] = units_of([str(table)], 3)
    assert list(last.rows({"en": "caption_en"}))[-1] == Captioned("", "t1", {"en": "text"})


def test_a_table_of_one_tar_keeps_its_name(tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    table.write_text("".join(json.dumps({"tar": "a", "key": str(n), "captions": {"en": "x"}}) + "\n" for n in range(5)))
    [unit] = units_of([str(table)], 2)
    assert unit.name == "a" and len(list(unit.rows(ALL_CAPTIONS))) == 5


def test_a_folder_of_tables_and_what_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.csv").write_text("id;en\n1;cat\n2;\n", encoding="utf-8-sig")
    units = list(units_of([str(folder)], 10))
    assert [unit.name for unit in units] == ["a-00000", "b-00000"]
    assert [row.captions for row in units[0].rows({"en": "en"}) if isinstance(row, Captioned)] == [{"en": "cat"}, {}]
    tar = write_tar(tmp_path / "a.tar", {})
    with pytest.raises(CorpusError, match="tars and tables"):
        list(units_of([str(tar), str(folder)], 10))
    (tmp_path / "a.csv").write_text("id;en\n1;cat\n")
    with pytest.raises(CorpusError, match="two tables have one name"):
        list(units_of([str(folder), str(tmp_path / "a.csv")], 10))


def test_rows_that_no_name_can_be_read_of_are_unusable_and_the_others_are_not(tmp_path: Path) -> None:
    rows = [
        {"key": "a", "tar": "t", "captions": {"en": "a cat"}},
        {"key": ["x"], "captions": {"en": "a cat"}},
        {"tar": "t", "captions": {"en": "a cat"}},
        {"key": "\ud800", "tar": "t", "captions": {"en": "a cat"}},
        {"key": "l" * 2000, "captions": {"en": "a cat"}},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [unit] = units_of([str(tmp_path / "t.jsonl")], 10)
    found = list(unit.rows(ALL_CAPTIONS))
    assert found[0] == Captioned("t", "a", {"en": "a cat"})
    assert [each.reason for each in found[1:] if isinstance(each, Unusable)] == [
        "row_unreadable", "key_missing", "key_not_utf8", "key_too_long",
    ]  # fmt: skip


def test_a_column_may_have_dots_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,captions.en,zh\n1,a cat,猫\n")
    [unit] = units_of([str(tmp_path / "t.csv")], 10)
    assert list(unit.rows({"en": "captions.en", "zh": "zh"})) == [Captioned("", "1", {"en": "a cat", "zh": "猫"})]
