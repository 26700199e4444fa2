"""Tables as people have them: every row arrives, or is named."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pea.corpus.tables import BadRow, Table, means_table, open_table
from pea.errors import CorpusError

CAPTION = 'a "red" cat; sits,\nthere'


def _values(table: Table, *columns: str) -> list[tuple[object, ...]]:
    return [tuple(row.get(name) for name in columns) for row in table.rows(columns)]


def _write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_csv_is_read_however_it_is_written(tmp_path: Path, delimiter: str, encoding: str, line_end: str) -> None:
    path = tmp_path / "photos.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end)
        writer.writerows([["file", "de", "n"], ["a.jpg", CAPTION, "1"], ["b.jpg", "", "2"], ["c, d.jpg", "Übung", ""]])
    table = open_table(path)
    assert table.columns == ("file", "de", "n")
    assert _values(table, "file", "de", "n") == [
        ("a.jpg", CAPTION, "1"),
        ("b.jpg", None, "2"),
        ("c, d.jpg", "Übung", None),
    ]
    assert [str(row) for row in table.rows()] == [f"{path}:{line}" for line in (2, 4, 5)]


def test_excels_own_line_names_the_delimiter(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "sep=;\r\nfile;n\r\na,b,c;1\r\nd,e,f;2\r\n")
    assert _values(open_table(path), "file", "n") == [("a,b,c", "1"), ("d,e,f", "2")]
    assert [row.number for row in open_table(path).rows()] == [3, 4]


def test_quotes_that_are_no_quoting(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", 'caption\turl\n"Hello" she said\thttp://a\n"so"\thttp://b\n5" nails\thttp://c\n')
    found = _values(open_table(path), "caption", "url")
    assert found == [('"Hello" she said', "http://a"), ('"so"', "http://b"), ('5" nails', "http://c")]


def test_a_list_of_texts_without_a_name(tmp_path: Path) -> None:
    path = _write(tmp_path / "prompts.txt", 'a cat, a dog\na cat\n"so", he said; "well"\n')
    table = open_table(path, names=["text"])
    assert _values(table, "text") == [("a cat, a dog",), ("a cat",), ('"so", he said; "well"',)]
    two = open_table(_write(tmp_path / "two.txt", "a, b\tc\nd\te, f\n"), names=["en", "de"])
    assert _values(two, "en", "de") == [("a, b", "c"), ("d", "e, f")]


def test_a_table_without_names(tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.txt", "a cat\teine Katze\na dog\tein Hund\n")
    assert _values(open_table(path, names=["en", "de"]), "en", "de") == [("a cat", "eine Katze"), ("a dog", "ein Hund")]


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.tsv"])
def test_in_a_table_of_one_column_a_comma_is_a_comma(tmp_path: Path, name: str) -> None:
    for text, found in (("a cat, a dog; b", "a cat, a dog; b"), ('"a ""b"", c"', 'a "b", c'), ("a\tb|c", "a\tb|c")):
        table = open_table(_write(tmp_path / name, f"text\nplain\n{text}\n"))
        assert table.columns == ("text",)
        assert _values(table, "text") == [("plain",), (found,)]
    unquoted = _write(tmp_path / name, 'text\n"so" she said\n"well", he said\n')
    assert _values(open_table(unquoted), "text") == [('"so" she said',), ('"well", he said',)]


def test_one_column_and_an_unnamed_index(tmp_path: Path) -> None:
    assert _values(open_table(_write(tmp_path / "one.txt", "text\na, b\n\nc\n"), delimiter="\t"), "text") == [
        ("a, b",),
        ("c",),
    ]
    assert open_table(_write(tmp_path / "pandas.csv", ",file\n0,a.jpg\n")).columns == ("column 1", "file")


def test_a_ragged_row_is_an_error_or_is_handed_over(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "file,de\na.jpg,eins\nb.jpg\nc.jpg,drei,3\nd.jpg,vier\n")
    with pytest.raises(CorpusError, match=r"a\.csv:3: a row that cannot be used; got 1 field "):
        list(open_table(path).rows())
    bad: list[BadRow] = []
    rows = [row.get("file") for row in open_table(path).rows(["file"], on_bad=bad.append)]
    assert rows == ["a.jpg", "d.jpg"]
    assert [(each.number, each.problem[:8]) for each in bad] == [(3, "1 field "), (4, "3 fields")]


def test_a_quote_that_is_never_closed_is_no_short_table(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", 'file,de\na.jpg,"eins"\nb.jpg,"zwei\nc.jpg,drei\n')
    with pytest.raises(CorpusError, match=r"a\.csv:3: a quote is opened and not closed"):
        list(open_table(path).rows(on_bad=lambda _: None))


def test_another_encoding_is_refused_with_its_line_and_read_when_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "file,fr\na.jpg,chat\nb.jpg,éléphant\n", "cp1252")
    with pytest.raises(CorpusError, match=r"a\.csv:3: the text is not UTF-8"):
        list(open_table(path).rows())
    assert _values(open_table(path, encoding="cp1252"), "fr") == [("chat",), ("éléphant",)]
    with pytest.raises(CorpusError, match="no such encoding"):
        open_table(path, encoding="latin-one")


def test_an_unknown_column_names_those_that_are_there(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "file;de\na.jpg;eins\n")
    with pytest.raises(CorpusError, match="no column caption; expected one of file, de"):
        list(open_table(path).rows(["caption"]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "not one byte"),
        ("a.csv", b"\n\n", "no line with names"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a occurs twice"),
        ("a.xlsx", b"PK", "Excel workbook"),
        ("a.csv.zst", b"\x28\xb5\x2f\xfd", "zstd -d"),
        ("a.parquet", b"PAR1 and then nothing", "Parquet file is damaged"),
        ("a.arrow", b"not at all", "Arrow file is damaged"),
        ("a.json", b"[{}, 5", "not a list of JSON objects"),
        ("a.pdf", b"%PDF", "not a table"),
        ("a.csv", b"\x28\xb5\x2f\xfd\0\0", "compressed with zstd; unpack it with `zstd -d`"),
        ("a.txt", b"\xfd7zXZ\0\0", "unpack it with `unxz`"),
        ("a.jsonl", b"SQLite format 3\0", "an SQLite database; write its table as CSV"),
        ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), "compressed with gzip; unpack it"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 9, mtime=0)[:-12], "compressed table is damaged"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        list(open_table(tmp_path / name).rows())


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["en", "en"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="two columns are called en"):
        open_table(tmp_path / "a.parquet")


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    for place in (tmp_path / "a.csv", str(tmp_path / "*.csv")):
        with pytest.raises(CorpusError, match="no such table"):
            open_table(place)


def test_json_lines(tmp_path: Path) -> None:
    lines = [{"file": "a", "captions": {"en": "x", "zh": None}}, {"file": "b", "n": 3}]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n5\n{broken\n"
    for path in (_write(tmp_path / "a.jsonl", text), tmp_path / "b.jsonl.gz"):
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
        table, bad = open_table(path), list[BadRow]()
        assert table.columns == ("file", "captions", "n")
        rows = list(table.rows(["file", "captions.en", "captions.zh"], on_bad=bad.append))
        assert [(row.get("file"), row.text("captions.en"), row.get("captions.zh")) for row in rows] == [
            ("a", "x", None),
            ("b", None, None),
        ]
        assert [each.number for each in bad] == [4, 5]


@pytest.mark.parametrize("indent", [None, 1])
def test_captions_as_coco_has_them(tmp_path: Path, indent: int | None) -> None:
    document = {
        "info": {"year": 2017},
        "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 8, "file_name": "8.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 8, "caption": "eins"},
            {"id": 2, "image_id": 7, "caption": "zwei"},
            {"id": 3, "image_id": 9, "caption": "drei"},
        ],
    }
    table = open_table(_write(tmp_path / "captions_val2017.json", json.dumps(document, indent=indent)))
    assert _values(table, "file_name", "caption") == [("8.jpg", "eins"), ("7.jpg", "zwei"), (None, "drei")]


def test_a_json_that_is_lines_after_all_and_one_that_is_no_table(tmp_path: Path) -> None:
    lines = _write(tmp_path / "a.json", '{"file": "a"}\n{"file": "b"}\n')
    assert _values(open_table(lines), "file") == [("a",), ("b",)]
    with pytest.raises(CorpusError, match=r"one JSON object is no table; .* got a, b"):
        open_table(_write(tmp_path / "b.json", '{"a": 1,\n"b": 2}'))


def test_one_json_list(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", json.dumps([{"file": "a"}, {"file": "b"}], indent=1))
    assert _values(open_table(path), "file") == [("a",), ("b",)]


def test_parquet_in_one_file_a_folder_and_a_pattern(tmp_path: Path) -> None:
    for part in range(3):
        content = {"url": [f"{part}-{row}" for row in range(600)], "sim": [0.5, float("nan"), None] * 200}
        pq.write_table(pa.table(content), tmp_path / f"part-{part}.parquet", row_group_size=250)
    (tmp_path / "00000.tar").touch()
    (tmp_path / "00000_stats.json").touch()
    for place in (tmp_path, str(tmp_path / "part-*.parquet"), [tmp_path / f"part-{n}.parquet" for n in range(3)]):
        table = open_table(place)
        rows = list(table.rows(["url", "sim"]))
        assert [row.get("url") for row in rows] == [f"{part}-{row}" for part in range(3) for row in range(600)]
        assert [row.get("sim") for row in rows[:3]] == [0.5, None, None]
        assert rows[601].number == 2
    assert next(dict(row.values) for row in open_table(tmp_path).rows(["url"])) == {"url": "0-0"}


@pytest.mark.parametrize("indexed", [True, False])
def test_arrow_as_datasets_keep_it(tmp_path: Path, indexed: bool) -> None:
    table = pa.table({"image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}], "text": ["hello"]})
    path = tmp_path / "data-00000-of-00001.arrow"
    with (pa.ipc.new_file if indexed else pa.ipc.new_stream)(str(path), table.schema) as writer:
        writer.write_table(table)
    row = next(open_table(tmp_path).rows())
    assert (row.get("image.path"), row.get("image.bytes"), row.text("text")) == ("a.jpg", b"\xff\xd8", "hello")
    with pytest.raises(CorpusError, match="not a text; got image"):
        row.text("image")


def test_tables_of_two_kinds_in_a_folder_are_not_guessed_at(tmp_path: Path) -> None:
    _write(tmp_path / "a.csv", "file,de\na,b\n")
    _write(tmp_path / "a.jsonl", "{}\n")
    with pytest.raises(CorpusError, match=r"not one table; .*kinds csv, jsonl"):
        open_table(tmp_path)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=2, max_size=2), max_size=9),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_whatever_csv_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([["first", "second"], *rows])
    found = _values(open_table(path, delimiter=delimiter), "first", "second")
    assert found == [tuple(value or None for value in row) for row in rows]


@pytest.mark.parametrize(
    ("place", "is_one"),
    [
        ("a.csv", True), ("A.TSV.gz", True), ("s3://b/*.parquet", True), ("pairs.txt", True), ("a.json", True),
        ("a.csv.zst", True), ("a.xlsx", True), ("a.tar", False), ("a.tar.zst", False), ("folder", False),
    ],
)  # fmt: skip
def test_what_is_called_as_a_table_is(place: str, is_one: bool) -> None:
    assert means_table(place) is is_one
