"""Tables of texts in place of tars: keys, parts, digests, and that no row is lost unsaid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pea.corpus.rules import TextSource
from pea.corpus.samples import Rejected
from pea.corpus.text_columns import open_texts
from pea.corpus.texts import Text, read_text_part, text_parts
from pea.errors import CorpusError

CSV = "en,zh,note\na cat,一只猫,x\na dog,,y\n,狗,z\na cat,猫,w\n"


def source(*places: Path, **changed: Any) -> TextSource:
    options = {"captions": (), "source_language": "en", "id_column": None, "rows_per_part": 2} | changed
    return TextSource(tuple(map(str, places)), **options)


def outcomes(texts: TextSource) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for part, same in text_parts(texts):
        for each in read_text_part(part, expect=same):
            name = f"{each.tar}/{each.key}"
            found.append((name, each.captions if isinstance(each, Text) else each.reason))
    return found


def test_keys_are_digests_of_texts(tmp_path: Path) -> None:
    (tmp_path / "cats.csv").write_text(CSV, encoding="utf-8")
    found = outcomes(source(tmp_path / "cats.csv", rows_per_part=4))
    cat = "cats-00000/sha256-1d5e23bb4aa9be4e2e08a4c3eab7ef0b"
    assert found[0][0].startswith("cats-00000/sha256-") and len(found[0][0]) == len(cat)
    assert found[0][1] == {"en": "a cat", "zh": "一只猫"} and found[1][1] == {"en": "a dog"}
    assert found[2] == ("cats-00000/row-4", "caption_missing")
    assert found[3] == (f"{found[0][0]}-2", {"en": "a cat", "zh": "猫"}), "the same text once more is no loss"


def test_keys_are_ids_where_there_are_some(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "captions": {"en": "a cat", "ja": "猫"}},
        {"id": "b/1", "captions": {"en": "a dog", "ko": None}},
        {"id": 7, "captions": {"en": "another"}},
        {"id": "x" * 2000, "captions": {"en": "a cat"}},
        {"captions": {"en": "no id"}},
        {"id": 9, "captions": {"en": 5}},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n")
    found = outcomes(source(tmp_path / "t.jsonl", rows_per_part=100))
    assert found[0] == ("t-00000/7", {"en": "a cat", "ja": "猫"})
    assert found[1] == ("t-00000/b/1", {"en": "a dog"})
    assert [reason for _, reason in found[2:4]] == ["key_duplicate", "key_too_long"]
    assert found[4][0].startswith("t-00000/sha256-")
    assert [reason for _, reason in found[5:]] == ["caption_not_text", "row_unreadable"]
    named = outcomes(source(tmp_path / "t.jsonl", captions=(("en", "captions.en"),), id_column="captions.ja"))
    assert named[0] == ("t-00000/猫", {"en": "a cat"})


def test_a_table_is_cut_into_parts_and_each_has_its_digest(tmp_path: Path) -> None:
    lines = [f"caption number {number}\tTitel {number}" for number in range(7)]
    path = tmp_path / "long.tsv"
    path.write_text("en\tde\n" + "\n".join(lines) + "\n")
    parts = list(text_parts(source(path, rows_per_part=3)))
    assert [(part.name, part.first, part.num_rows) for part, _ in parts] == [
        ("long-00000", 0, 3),
        ("long-00001", 3, 3),
        ("long-00002", 6, 1),
    ]
    lines[4] = "changed\tanders"
    path.write_text("en\tde\n" + "\n".join(lines) + "\n")
    changed = dict(text_parts(source(path, rows_per_part=3)))
    same = [before == after for (_, before), after in zip(parts, changed.values(), strict=True)]
    assert same == [True, False, True]
    with pytest.raises(CorpusError, match=r"long\.tsv, rows 4 to 6: the texts have changed since the cache was begun"):
        list(read_text_part(parts[1][0], expect=parts[1][1]))
    assert len(list(read_text_part(parts[0][0], expect=parts[0][1]))) == 3


def test_the_same_rows_in_another_table_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("zh,other,en\n猫,1,a cat\n狗,2,a dog\n", encoding="utf-8-sig")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/t.jsonl").write_text('{"en": "a cat", "zh": "猫"}\n{"zh": "狗", "en": "a dog"}\n', "utf-8")
    one, other = (list(text_parts(source(place))) for place in (tmp_path / "t.csv", tmp_path / "sub/t.jsonl"))
    assert [same for _, same in one] == [same for _, same in other]


def test_keys_that_ended_their_process_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,en\n1,a cat\n2,a dog\n")
    [(part, same)] = text_parts(source(tmp_path / "t.csv"))
    told: list[str] = []
    found = list(read_text_part(part, skip=("2",), in_flight=told.append, expect=same))
    assert isinstance(found[0], Text) and found[0].id == "t-00000/1"
    assert isinstance(found[1], Rejected) and found[1].reason == "process_killed" and told == ["1", "2"]


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,translation\na,b\n")
    with pytest.raises(CorpusError, match=r"no column for en; .*; got text, translation\. Set .*as {en: text}"):
        open_texts(source(tmp_path / "t.csv"))
    with pytest.raises(CorpusError, match=r"no column caption; expected one of text, translation"):
        open_texts(source(tmp_path / "t.csv", captions=(("en", "caption"),)))
    with pytest.raises(CorpusError, match="no column number"):
        open_texts(source(tmp_path / "t.csv", captions=(("en", "text"),), id_column="number"))
    with pytest.raises(CorpusError, match="no such table"):
        open_texts(source(tmp_path / "none.csv"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/t.csv").write_text("text\na\n")
    with pytest.raises(CorpusError, match="two tables have one name; got t"):
        list(text_parts(source(tmp_path / "t.csv", tmp_path / "sub/t.csv", captions=(("en", "text"),))))


def test_ids_are_whole_numbers_or_texts_in_whatever_form(tmp_path: Path) -> None:
    rows = [{"id": value, "en": f"text {number}"} for number, value in enumerate([3.0, None, True, 0.5, 2.0**60, [1]])]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = outcomes(source(tmp_path / "t.jsonl", rows_per_part=9))
    assert found[0][0] == "t-00000/3" and found[1][0].startswith("t-00000/sha256-")
    assert [reason for _, reason in found[2:]] == ["key_not_text"] * 4, "no id is passed over"
    (tmp_path / "i.csv").write_text("en,id\na cat,kucing\na big cat,kucing\n")
    named = outcomes(source(tmp_path / "i.csv", captions=(("en", "en"), ("id", "id"))))
    assert [texts for _, texts in named] == [{"en": "a cat", "id": "kucing"}, {"en": "a big cat", "id": "kucing"}]


def test_a_language_that_only_later_rows_have_is_read(tmp_path: Path) -> None:
    lines = [{"en": f"text {n}", ("de" if n < 300 else "fr"): "t"} for n in range(400)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = outcomes(source(tmp_path / "t.jsonl", rows_per_part=500))
    assert sum("de" in texts for _, texts in found) == 300 and sum("fr" in texts for _, texts in found) == 100


def test_captions_in_one_cell(tmp_path: Path) -> None:
    pairs = pa.array([[("en", "a cat"), ("zh", "猫")], None], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"captions": pairs}), tmp_path / "map.parquet")
    assert [texts for _, texts in outcomes(source(tmp_path / "map.parquet"))] == [
        {"en": "a cat", "zh": "猫"},
        "caption_missing",
    ]
    cells = [["a cat"], ["ab", "cd"], [{"language": "en", "text": "x"}], '{"en": "a cat"}', 7]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"captions": cell}) + "\n" for cell in cells))
    assert {reason for _, reason in outcomes(source(tmp_path / "t.jsonl"))} == {"caption_not_text"}


def test_of_parquet_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"image": [b"x" * 99, b"y"], "en": ["a cat", "a dog"], "zh": ["猫", "狗"], "key": ["k", "l"]}
    pq.write_table(pa.table(content), tmp_path / "t.parquet")
    read: list[list[str]] = []
    iterate = pq.ParquetFile.iter_batches

    def noted(self: Any, **options: Any) -> Any:
        read.append(options["columns"])
        return iterate(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    assert len(outcomes(source(tmp_path / "t.parquet"))) == 2
    assert read == [["en", "zh", "key"]] * 2


def test_a_part_knows_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "cats.csv").write_text(CSV, encoding="utf-8")
    [first, second] = [part for part, _ in text_parts(source(tmp_path / "cats.csv"))]
    assert (first.left_out, first.num_usable) == ((), 2)
    assert (second.left_out, second.num_usable) == ((("caption_missing", 1),), 1)


@pytest.mark.parametrize(
    ("names", "mapping"),
    [
        ("EN,ZH", "{en: EN, zh: ZH}"),
        ("caption_en,caption_zh", "{en: caption_en, zh: caption_zh}"),
        ("English,Chinese", "{en: English, zh: Chinese}"),
        ("英文,中文", "{en: 英文, zh: 中文}"),
        ("eng_Latn,zho_Hans", "{en: eng_Latn, zh: zho_Hans}"),
        ("en-US,es-AR", "{en: en-US, es: es-AR}"),
    ],
)
def test_columns_that_could_be_meant_are_proposed(tmp_path: Path, names: str, mapping: str) -> None:
    (tmp_path / "t.csv").write_text(f"{names}\na cat,一只猫\n", "utf-8")
    with pytest.raises(CorpusError, match=re.escape(f"corpora.parallel.captions, as {mapping}, if")):
        open_texts(source(tmp_path / "t.csv"))


def test_captions_of_a_translation_set_are_proposed(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"translation": {"en": "a cat", "zh": "猫"}}\n', "utf-8")
    with pytest.raises(CorpusError, match=r"as \{en: translation\.en, zh: translation\.zh\}"):
        open_texts(source(tmp_path / "t.jsonl"))
    (tmp_path / "t.tsv").write_text("a cat\t猫\na dog\t狗\n", "utf-8")
    with pytest.raises(CorpusError, match="a text file without a line of names needs one, as its first: en, zh"):
        open_texts(source(tmp_path / "t.tsv"))
