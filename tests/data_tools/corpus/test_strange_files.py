"""What folders, tables and tars hold that nobody would put there on purpose, beyond the kinds of ``dirt``."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import unicodedata
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image

from data_tools.corpus.column_names import ColumnMapping, parse_mapping, propose_mapping
from data_tools.corpus.corpus_keys import sample_documents
from data_tools.corpus.duplicates import perceptual_hash
from data_tools.corpus.filter_rules import image_size
from data_tools.corpus.image_bytes import UnusableImageError, packed_image
from data_tools.corpus.image_files import ImageFiles
from data_tools.corpus.other_columns import other_columns
from data_tools.corpus.pack import PackCounts, PackOptions, pack_rows
from data_tools.corpus.pack_sources import Source, open_source
from pea.corpus.places import Tar
from pea.corpus.tables import Row, open_table
from pea.errors import CorpusError, StorageError
from pea.storage import Location
from tests.corpus.tar_files import captions, write_tar
from tests.data_tools.corpus.dirt import EPS, encoded


def _pack(source: Source, out: Path) -> PackCounts:
    total = PackCounts()
    for part in pack_rows(source.items(), out, "p", 100, PackOptions()):
        total.add(part.counts)
    return total


def test_no_program_is_started_on_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands an EPS to Ghostscript, whatever the file is called."""
    started: list[object] = []

    def start(*_: object, **__: object) -> None:
        started.append(1)
        raise OSError("no Ghostscript here")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    for shorter_side_px in (None, 8):
        with pytest.raises(UnusableImageError, match="image_unknown"):
            packed_image(EPS, shorter_side_px=shorter_side_px, verify=True)
    assert perceptual_hash(EPS) is None and image_size(EPS) is None and not started


def test_what_is_lost_in_a_conversion_is_not_called_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed_image(encoded("TIFF")).changes == ("TIFF to PNG, without loss",)
    assert packed_image(encoded("TIFF", "CMYK")).changes == ("TIFF of mode CMYK to a PNG of RGB",)
    for shorter_side_px in (None, 8):
        with pytest.raises(UnusableImageError, match="image_unknown") as found:
            packed_image(encoded("TIFF", "F"), shorter_side_px=shorter_side_px)
        assert "pixel mode F" in found.value.detail
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnusableImageError, match="image_too_large"):
        packed_image(encoded("PNG"), verify=True)


def test_texts_that_are_spelled_otherwise_than_their_image_and_texts_of_nobody(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "é")
    for name in (f"{decomposed}.png", "IMG.PNG", "one.png", "ONE.png", "two.png"):
        (tmp_path / name).write_bytes(encoded("PNG"))
    for name in ("é.txt", "img.TXT", "One.txt", "TWO.txt", "Two.txt", "nobody.txt", "two.zh-Hans.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    source = open_source(str(tmp_path), language="en")
    found = {item.file: item.captions for item in source.items()}
    assert found == {
        f"{decomposed}.png": {"en": "text of é.txt"},
        "IMG.PNG": {"en": "text of img.TXT"},
        "one.png": {},
        "ONE.png": {},
        "two.png": {"zh-Hans": "text of two.zh-Hans.txt"},
    }
    assert source.images is not None
    assert source.images.texts - source.images.used_texts == {"One.txt", "TWO.txt", "Two.txt", "nobody.txt"}


def test_the_name_that_is_there_is_meant(tmp_path: Path) -> None:
    for name in (" a.png", "a.png", "A.png", "b.png"):
        (tmp_path / name).write_bytes(encoded("PNG"))
    files = ImageFiles.find(tmp_path)
    for said, meant in ((" a.png", " a.png"), ("http://x/A.png", "A.png"), ("A", "A.png"), (" b.png ", "b.png")):
        assert files.match(said) == [meant]
    assert sorted(files.match("x/B.PNG")) == ["b.png"] and files.match("c.png") == []


def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    """Opening one would wait for ever, or never end."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.tar").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for act in (Location.open_stream, Location.status):
        for name in ("pipe.csv", "zeros.tar"):
            with pytest.raises(StorageError, match="not a file; got a pipe, a socket or a device"):
                act(Location.parse(tmp_path / name))
    with pytest.raises(CorpusError, match="not a file"):
        open_table(tmp_path / "pipe.csv")
    assert "loop" not in [entry.name for entry in Location.parse(tmp_path).entries()]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(encoded("PNG"))
    os.mkfifo(photos / "a.txt")
    total = _pack(open_source(str(photos), language="en"), tmp_path / "out")
    assert total.dropped == {"caption_not_text": 1}


def test_columns_of_every_kind_are_kept_or_named() -> None:
    notes: list[str] = []
    deep: object = 1
    for _ in range(20):
        deep = [deep]
    when = datetime.datetime(2026, 11, 27, 20, 30, tzinfo=datetime.UTC)
    values = {
        "text": "x", "flag": True, "whole": 2**62, "part": 0.5, "none": None, "nan": float("nan"),
        "nested": {"a": {"b": [1, None, "c"]}, "t": (when.date(),)}, "when": when, "price": decimal.Decimal("1.50"),
        "id": uuid.UUID(int=1), "raw": b"\0", "far": float("inf"), "deep": deep, "long": ["x" * 60_000, "y" * 60_000],
        "lone": "\ud800", "caption_en": "a cat",
    }  # fmt: skip
    found = other_columns(values, ColumnMapping(captions={"en": "caption_en"}), notes)
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "text": "x", "flag": True, "whole": 2**62, "part": 0.5, "nan": None,
        "nested": {"a": {"b": [1, None, "c"]}, "t": ["2026-11-27"]}, "when": "2026-11-27T20:30:00+00:00",
        "price": "1.50", "id": "00000000-0000-0000-0000-000000000001",
    }  # fmt: skip
    assert notes == [
        "without the column 'raw', which holds bytes",
        "without the column 'far', which is infinite",
        "without the column 'deep', which is nested deeper than 16 levels",
        "without the column 'long', which is longer than 100000 characters",
        "without the column 'lone', which is not Unicode",
    ]


def test_a_column_of_bytes_beside_names_of_files_is_not_the_images(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encoded("PNG"))
    columns = {"digest": [bytes(80), bytes(80)], "file": ["0.png", "1.png"], "caption_en": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("file,caption_de\n0.png,eine Katze\n")
    source = open_source(str(tmp_path), table=str(tmp_path / "t.parquet"))
    assert source.mapping.image == "file" and source.images is not None
    total = _pack(source, tmp_path / "out")
    assert total.packed == 2 and total.changes == {"without the column 'digest', which holds bytes": 2}
    named = open_source(str(tmp_path), table=str(tmp_path / "t.csv"))
    assert dict(named.mapping.captions) == {"de": "caption_de"}, "the table that is named counts"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_encodings_with_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("key,zh\na,猫\n", encoding=encoding)
    [row] = open_table(tmp_path / "t.csv").rows()
    assert dict(row.values) == {"key": "a", "zh": "猫"}


def test_a_long_field_is_no_open_quote(tmp_path: Path) -> None:
    text = "x " * 100_000
    (tmp_path / "t.csv").write_text(f'key,en\na,{text}\nb,"{text}"\n')
    assert [row.get("en") for row in open_table(tmp_path / "t.csv").rows()] == [text, text]
    (tmp_path / "t.csv").write_text(f'key,en\na,"{text}\nb,c\n')
    with pytest.raises(CorpusError, match="a quote is opened and not closed"):
        list(open_table(tmp_path / "t.csv").rows())


def test_samples_whose_json_cannot_be_read_are_samples_too(tmp_path: Path) -> None:
    files = [("a.png", b"x"), ("a.json", captions(en="a")), ("b.png", b"x"), ("b.json", b"{"), ("c.png", b"x")]
    write_tar(tmp_path / "t.tar", files)
    found = dict(sample_documents(Tar("t", Location.parse(tmp_path / "t.tar"))))
    assert found["a"] is not None and {key: row for key, row in found.items() if key != "a"} == {"b": None, "c": None}


def _notes(source: Source, out: Path) -> dict[str, int]:
    return dict(_pack(source, out).changes)


def test_of_several_captions_the_first_that_says_something_is_taken_and_the_others_are_counted(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(encoded("JPEG"))
    lists: list[list[str]] = [["one", "two"], ["nan", " ", "\u200b", "three"], ["four"], []]
    rows = [json.dumps({"file": f"{number}.jpg", "en": each}) for number, each in enumerate(lists)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows) + "\n")
    source = open_source(str(tmp_path))
    items = list(source.items())
    assert [item.captions.get("en") for item in items] == ["one", "three", "four", None]
    counts = _pack(source, tmp_path / "out")
    assert counts.changes == {"lists of several captions, of which the first is taken": 1}
    assert counts.dropped == {"caption_missing": 1}


def test_texts_beside_images_are_read_as_tables_are(tmp_path: Path) -> None:
    """In UTF-16 as well, placeholders are none, and what a second text says in the same language is counted."""
    texts = {"a.txt": "红狐".encode("utf-16"), "b.txt": b"N/A", "c.txt": "猫".encode(), "c.caption": "狗".encode()}
    texts |= {"d.json": captions(zh="NULL", en="a cat"), "e.json": captions(zh="\u200b")}
    for name, data in texts.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).with_suffix(".jpg").write_bytes(encoded("JPEG"))
    source = open_source(str(tmp_path), language="zh")
    assert {item.where: item.captions for item in source.items()} == {
        "a.jpg": {"zh": "红狐"},
        "b.jpg": {},
        "c.jpg": {"zh": "猫"},
        "d.jpg": {"en": "a cat"},
        "e.jpg": {},
    }
    said = _notes(source, tmp_path / "out")
    assert said["further captions in a language that the image has one in, left out"] == 1
    assert sum(count for note, count in said.items() if "placeholder" in note) == 2
    assert sum(count for note, count in said.items() if "control characters alone" in note) == 1


def test_a_column_of_images_and_of_names_is_both(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(encoded("JPEG"))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    said = [{"bytes": encoded("PNG"), "path": None}, {"bytes": None, "path": "b.jpg"}, {"bytes": None, "path": "c.jpg"}]
    pq.write_table(pa.table({"image": pa.array(said, kind), "zh": ["一", "二", "三"]}), tmp_path / "t.parquet")
    counts = _pack(open_source(str(tmp_path)), tmp_path / "out")
    assert (counts.packed, counts.dropped) == (2, {"file_missing": 1})
    (tmp_path / "b.jpg").unlink()
    counts = _pack(open_source(str(tmp_path)), tmp_path / "without")
    assert counts.dropped == {"file_missing": 2}
    assert all("no folder of images was looked into" in detail for _, _, detail in counts.named)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a.jpg,one\nb.jpg,two\n", "the first line holds no names of columns; got a.jpg, a file"),
        (b"PK\3\4\x14\0" + bytes(100), "Excel workbook"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "Excel workbook of the old kind"),
        (b"PAR1" + bytes(100), "a name that ends in .parquet"),
        (b"file,zh\na.jpg,\nb.jpg,\n", "no text in the first rows of zh"),
        (b"file,zh,zh\na.jpg,x,y\n", "Name every column once"),
    ],
)
def test_what_is_no_table_of_captions_says_what_it_is(tmp_path: Path, text: bytes, message: str) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(CorpusError, match=message):
        open_source(str(tmp_path))


def test_what_reads_an_image_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    heic, jxl = b"\0\0\0\x18ftypheic" + bytes(64), b"\xff\x0a" + bytes(64)
    monkeypatch.setattr("data_tools.corpus.image_bytes.find_spec", lambda _: None)
    for data, remedy in ((heic, "pip install 'pea-cache\\[data\\]'"), (jxl, "pip install pillow-jxl-plugin")):
        with pytest.raises(UnusableImageError) as caught:
            packed_image(data)
        assert remedy.replace("\\", "") in caught.value.detail
    monkeypatch.setattr("data_tools.corpus.image_bytes.find_spec", lambda _: object())
    with pytest.raises(UnusableImageError) as caught:
        packed_image(heic)
    assert "pip" not in caught.value.detail


def test_a_sentence_does_not_end_twice() -> None:
    assert str(CorpusError("damaged", got="no footer.", remedy="Restore it.")) == "damaged; got no footer. Restore it."


def test_a_column_that_is_named_leaves_the_others_as_they_are_found() -> None:
    rows = [Row("t.csv", 2, {"image": "a.png", "english": "a dog", "felirat": "egy kutya"})]
    given = parse_mapping(["hu=felirat"])
    found = propose_mapping(rows, given, lambda name: name.endswith(".png"))
    assert found.captions == {"hu": "felirat", "en": "english"}
    named = propose_mapping(rows, parse_mapping(["en=felirat"]), lambda name: name.endswith(".png"))
    assert named.captions == {"en": "felirat"}, "what is named comes first"
    assert propose_mapping(rows, given, lambda name: name.endswith(".png"), captions=False).captions == given.captions
