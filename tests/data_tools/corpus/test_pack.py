"""Packing loses nothing unsaid: whatever a folder and its table hold is packed, or counted and named."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.corpus.column_names import ColumnMapping, language_of_column
from data_tools.corpus.image_bytes import packed_image
from data_tools.corpus.pack import REASONS, PackCounts, PackOptions, pack_part, pack_rows
from data_tools.corpus.pack_sources import Source, open_source
from data_tools.corpus.tar_items import tar_items
from pea.corpus.samples import Sample, read_tar
from pea.errors import CorpusError
from tests.corpus.tar_files import ALL, write_tar
from tests.data_tools.corpus.dirt import KINDS, Corpus, encoded, pixels


def _pack(source: Source, out: Path, rows_per_tar: int = 7, **options: object) -> PackCounts:
    total = PackCounts()
    for part in pack_rows(source.items(), out, "p", rows_per_tar, PackOptions(**options)):  # type: ignore[arg-type]
        total.add(part.counts)
    return total


def _packed(out: Path) -> dict[str, tuple[dict[str, object], bytes]]:
    """Key -> json and image, of all tars."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.rpartition(".")
                found.setdefault(key, {})["json" if extension == "json" else "image"] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return {key: (json.loads(files["json"]), files["image"]) for key, files in found.items()}


def _fill(folder: Path, kinds: list[str], delimiter: str = ";", encoding: str = "utf-8-sig") -> Corpus:
    corpus = Corpus(folder / "photos")
    corpus.folder.mkdir()
    corpus.photo("packed", "first.jpg", encoded("JPEG"))
    for number, kind in enumerate(kinds):
        KINDS[kind](corpus, f"n{number}")
    corpus.write_table(corpus.folder / "photos.csv", delimiter, encoding)
    return corpus


def _check(corpus: Corpus, out: Path, rows_per_tar: int) -> None:
    source = open_source(str(corpus.folder))
    total = _pack(source, out, rows_per_tar)
    assert total.seen == len(corpus.rows) == total.packed + total.dropped.total()
    assert Counter(total.dropped) == corpus.expected - Counter(packed=corpus.expected["packed"])
    assert len(total.named) == total.dropped.total()
    assert set(total.dropped) <= REASONS.keys()
    assert source.images is not None
    assert len(source.unnamed()) == corpus.unnamed
    assert source.images.others.total() == corpus.not_images + 1  # the table
    on_disk = sum(not path.is_dir() for path in corpus.folder.rglob("*"))
    assert source.images.num_files == on_disk == len(source.images.paths) + corpus.not_images + 1
    read = [each for tar in sorted(out.glob("*.tar")) for each in read_tar(tar, ALL)]
    assert [each for each in read if not isinstance(each, Sample)] == []
    assert len(read) == total.packed == corpus.expected["packed"]


def test_every_kind_of_dirt_at_once(tmp_path: Path) -> None:
    assert len(KINDS) >= 25
    _check(_fill(tmp_path, list(KINDS)), tmp_path / "out", 7)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=12),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    rows_per_tar=st.integers(1, 9),
)
def test_counts_add_up_whatever_comes_together(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], delimiter: str, encoding: str, rows_per_tar: int
) -> None:
    folder = tmp_path_factory.mktemp("dirt")
    _check(_fill(folder, kinds, delimiter, encoding), folder / "out", rows_per_tar)


def test_placeholders_and_entities_are_said(tmp_path: Path) -> None:
    corpus = _fill(tmp_path, ["placeholders for captions", "HTML entities", "jpeg"])
    total = _pack(open_source(str(corpus.folder)), tmp_path / "out")
    assert total.dropped == {"caption_missing": 6} and total.packed == corpus.expected["packed"]
    placeholders, entities = sorted(total.changes)
    assert "placeholder (nan, NULL, N/A, #REF!, ...), taken for none" in placeholders
    assert total.changes[placeholders] == 12 and total.changes[entities] == 1
    assert "HTML entities, which `pea data clean` mends" in entities


def test_a_table_in_which_rows_vanish_would_be_noticed(tmp_path: Path) -> None:
    """The check above fails when an item is lost."""
    corpus = _fill(tmp_path, ["jpeg", "jpeg"])
    corpus.rows.append(["another.jpg", "", "", ""])
    with pytest.raises(AssertionError):
        _check(corpus, tmp_path / "out", 7)


def test_images_stay_as_they_are_stored_and_captions_and_columns_come_along(tmp_path: Path) -> None:
    corpus = _fill(tmp_path, ["webp", "EXIF orientation", "odd captions", "a png that is named jpg"])
    _pack(open_source(str(corpus.folder)), tmp_path / "out")
    found = _packed(tmp_path / "out")
    for row, (document, image) in zip(corpus.rows, found.values(), strict=True):
        assert image == (corpus.folder / row[0]).read_bytes()
        assert document == {"captions": {"zh": row[1], "en": row[2]}, "watermark": "0.1", "file": row[0]}
    assert sorted(found) == [f"{number:09d}" for number in range(5)]


def test_two_runs_give_the_same_bytes_and_a_second_one_packs_nothing(tmp_path: Path) -> None:
    corpus = _fill(tmp_path, [*KINDS][:20])
    for out in ("one", "two", "two"):
        _pack(open_source(str(corpus.folder)), tmp_path / out)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [path.name for path in sorted((tmp_path / "two").iterdir())] == names
    digests = [
        [hashlib.sha256((tmp_path / out / name).read_bytes()).digest() for name in names] for out in ("one", "two")
    ]
    assert digests[0] == digests[1]
    parts = list(pack_rows(open_source(str(corpus.folder)).items(), tmp_path / "one", "p", 7, PackOptions()))
    assert [part.was_there for part in parts] == [bool(part.counts.packed) for part in parts]


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    corpus, out = _fill(tmp_path, ["jpeg"] * 20), tmp_path / "out"
    parts = pack_rows(open_source(str(corpus.folder)).items(), out, "p", 7, PackOptions())
    next(parts)
    next(parts)
    (out / "p-00001.pack.json").unlink()  # killed between the tar and its record
    (out / ".p-00002.tar.tmp-0123456789ab").write_bytes(b"half")
    again = list(pack_rows(open_source(str(corpus.folder)).items(), out, "p", 7, PackOptions()))
    assert [part.was_there for part in again] == [True, False, False]
    assert not [path for path in out.iterdir() if "tmp" in path.name]
    assert len(_packed(out)) == 21


def test_a_part_of_which_nothing_was_packed_binds_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "a.txt").write_text("un chat")
    assert _pack(open_source(str(tmp_path)), tmp_path / "out").packed == 0
    assert _pack(open_source(str(tmp_path), language="fr"), tmp_path / "out").packed == 1
    with pytest.raises(CorpusError, match="packed from other rows"):
        _pack(open_source(str(tmp_path), language="de"), tmp_path / "out")


@pytest.mark.parametrize(
    ("column", "language"),
    [
        ("zh", "zh"),
        ("caption_zh", "zh"),
        ("captions.zh-Hans", "zh-Hans"),
        ("Chinese caption", "zh"),
        ("textDe", "de"),
        ("中文", "zh"),
        ("日本語キャプション", "ja"),
        ("英语描述", "en"),
        ("英文/中文", None),
        ("id", None),
        ("caption", None),
        ("title_id", "id"),
        ("watermark", None),
        ("is_caption_ok", None),
    ],
)
def test_a_name_says_its_language_or_none(column: str, language: str | None) -> None:
    assert language_of_column(column) == language


def test_what_was_packed_from_something_else_is_not_mixed(tmp_path: Path) -> None:
    corpus, out = _fill(tmp_path, ["jpeg"] * 8), tmp_path / "out"
    _pack(open_source(str(corpus.folder)), out)
    with pytest.raises(CorpusError, match="packed from other rows, files or options"):
        _pack(open_source(str(corpus.folder)), out, shorter_side_px=8)
    corpus.rows.pop(0)
    corpus.rows[3:] = []
    corpus.write_table(corpus.folder / "photos.csv", ",", "utf-8")
    with pytest.raises(CorpusError, match="packed from other rows"):
        _pack(open_source(str(corpus.folder)), out)
    (out / "p-00000.pack.json").unlink()
    with pytest.raises(CorpusError, match="parts of a longer source"):
        _pack(open_source(str(corpus.folder)), out)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("TIFF", "RGB"), ("TIFF", "RGBA"), ("TIFF", "L"), ("TIFF", "1"), ("TIFF", "I;16"), ("BMP", "RGB"), ("GIF", "P")],
)
def test_formats_that_the_cache_does_not_read_keep_every_pixel(kind: str, mode: str) -> None:
    data = encoded(kind, mode)
    packed = packed_image(data)
    assert packed.extension == "png"
    assert packed.changes == (f"{kind} to PNG, without loss",)
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(packed.data))
    assert np.array_equal(np.asarray(before.convert(after.mode)), np.asarray(after))


def test_a_tiff_that_lies_on_its_side_is_packed_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    packed = packed_image(encoded("TIFF", exif=exif))
    assert Image.open(io.BytesIO(packed.data)).size == (16, 24)


def test_images_are_made_smaller_only_where_asked(tmp_path: Path) -> None:
    corpus, out = _fill(tmp_path, ["CMYK jpeg", "16 bit png", "png with alpha", "EXIF orientation"]), tmp_path / "out"
    total = _pack(open_source(str(corpus.folder)), out, shorter_side_px=8)
    assert total.changes["made smaller"] == total.packed == 5
    samples = [each for tar in sorted(out.glob("*.tar")) for each in read_tar(tar, ALL)]
    assert [each.image.size for each in samples if isinstance(each, Sample)] == [(12, 8)] * 4 + [(8, 12)]
    assert [each.original_size for each in samples if isinstance(each, Sample)] == [(16, 24)] * 4 + [(24, 16)]


def test_damaged_images_are_found_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    noise = io.BytesIO()
    pixels(size=(64, 64)).save(noise, "JPEG")
    (tmp_path / "photos/a.jpg").write_bytes(noise.getvalue()[:-900])
    (tmp_path / "photos/b.jpg").write_bytes(noise.getvalue())
    for name in "ab":
        (tmp_path / f"photos/{name}.txt").write_text("a cat")
    source = open_source(str(tmp_path / "photos"), language="en")
    assert _pack(source, tmp_path / "quick").packed == 2
    assert _pack(source, tmp_path / "verified", verify=True).dropped == Counter(image_undecodable=1)


def test_texts_and_jsons_beside_images(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / f"{name}.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "a.txt").write_text("\ufeffun chat\n", "utf-8")
    (tmp_path / "b.zh.txt").write_text("猫", "utf-8")
    (tmp_path / "c.json").write_text('{"captions": {"de": "Katze"}, "score": 5}')
    (tmp_path / "d.txt").write_bytes("été".encode("cp1252"))
    total = _pack(open_source(str(tmp_path), language="fr"), tmp_path / "out")
    assert (total.packed, total.dropped) == (3, Counter(caption_not_text=1, caption_missing=1))
    captions = [document["captions"] for document, _ in _packed(tmp_path / "out").values()]
    assert captions == [{"fr": "un chat"}, {"zh": "猫"}, {"de": "Katze"}]
    assert _pack(open_source(str(tmp_path)), tmp_path / "no-language").dropped["caption_not_text"] == 2


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_a_dataset_on_disk(tmp_path: Path, kind: str) -> None:
    data = [encoded("JPEG"), encoded("PNG"), None]
    rows = pa.table({"image": [{"bytes": each, "path": "x.jpg"} for each in data], "text_zh": ["猫", "狗", "鸟"]})
    folder = tmp_path / "train"
    folder.mkdir()
    if kind == "arrow":
        with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), rows.schema) as writer:
            writer.write_table(rows)
        (folder / "state.json").write_text("{}")
        (tmp_path / "dataset_dict.json").write_text("{}")
        with pytest.raises(CorpusError, match="several splits; expected one of its folders: train"):
            open_source(str(tmp_path))
    else:
        pq.write_table(rows, folder / "0.parquet")
    total = _pack(open_source(str(folder)), tmp_path / "out")
    assert (total.packed, total.dropped) == (2, Counter(file_missing=1))
    assert [image for _, image in _packed(tmp_path / "out").values()] == data[:2]


def test_the_language_of_a_row_can_stand_in_another_column(tmp_path: Path) -> None:
    rows = {"TEXT": ["chat", "Katze", "x"], "LANGUAGE": ["fr", "de", None], "jpg": [encoded("JPEG")] * 3}
    rows |= {"camera": ["a", None, "b"]}
    pq.write_table(pa.table(rows), tmp_path / "laion.parquet")
    source = open_source(str(tmp_path / "laion.parquet"))
    total = _pack(source, tmp_path / "out")
    assert source.lines() == ["image: jpg", "caption: TEXT, in the language of LANGUAGE", "kept in the json: camera"]
    assert (total.captions, total.dropped) == (Counter(fr=1, de=1), Counter(language_unknown=1))


def test_a_column_that_may_be_captions_is_asked_about(tmp_path: Path) -> None:
    rows = {"image": [encoded("JPEG")], "English": ["a cat"], "説明": ["ねこ"], "备注": ["猫"], "url": ["http://x"]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    lines = open_source(str(tmp_path / "t.parquet")).lines()
    assert lines[1:] == [
        "caption in en: English",
        "kept in the json: 説明, 备注, url",
        "captions in ja in 説明? then: --map ja=説明",
        "captions in zh in 备注? then: --map zh=备注",
    ]
    given = ColumnMapping(captions={"ja": "説明", "zh": "备注"})
    assert open_source(str(tmp_path / "t.parquet"), given=given).lines()[-1] == "kept in the json: url"


def _tar_of(path: Path) -> Path:
    caption = json.dumps(
        {"caption": "a cat that sits on the green grass", "url": "u", "original_width": 90, "original_height": 60}
    ).encode()
    files = [("000000.jpg", encoded("JPEG")), ("000000.json", caption), ("000000.txt", b"a cat")]
    return write_tar(path, [*files, ("000001.jpg", encoded("JPEG")), ("000002.json", caption)])


def test_tars_of_img2dataset_keep_names_and_keys(tmp_path: Path) -> None:
    _tar_of(tmp_path / "00000.tar")
    (tmp_path / "00000_stats.json").write_text('{"successes": 3}')
    with pytest.raises(CorpusError, match=r"language the column caption is.*--language en, or --map en=caption"):
        open_source(str(tmp_path))
    source = open_source(str(tmp_path), language="en")
    counts = pack_part(tar_items(source.tars[0], source.mapping), tmp_path / "out", "00000", PackOptions()).counts
    assert (counts.seen, counts.packed) == (3, 1)
    assert counts.dropped == Counter(caption_missing=1, image_missing=1)
    [sample] = read_tar(tmp_path / "out/00000.tar", ALL)
    assert isinstance(sample, Sample)
    assert (sample.key, sample.captions, sample.original_size) == (
        "000000",
        {"en": "a cat that sits on the green grass"},
        (60, 90),
    )


def test_tars_with_texts_alone(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("k.jpg", encoded("JPEG")), ("k.txt", b"a cat"), ("l.png", encoded("PNG"))])
    source = open_source(str(tmp_path / "a.tar"), language="en")
    counts = pack_part(tar_items(source.tars[0], source.mapping), tmp_path / "out", "a", PackOptions()).counts
    assert (counts.packed, counts.dropped) == (1, Counter(caption_missing=1))


def test_captions_as_coco_has_them(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/7.jpg").write_bytes(encoded("JPEG"))
    annotations = [{"image_id": 7, "caption": text} for text in ("eine Katze", "ein Tier")]
    document = {"images": [{"id": 7, "file_name": "7.jpg"}], "annotations": annotations}
    (tmp_path / "captions.json").write_text(json.dumps(document))
    source = open_source(str(tmp_path / "photos"), table=str(tmp_path / "captions.json"), language="de")
    assert _pack(source, tmp_path / "out").packed == 2
    captions = [packed[0]["captions"] for packed in _packed(tmp_path / "out").values()]
    assert captions == [{"de": "eine Katze"}, {"de": "ein Tier"}]


def test_a_sidecar_proves_what_was_packed(tmp_path: Path) -> None:
    corpus, out = _fill(tmp_path, ["jpeg"] * 3), tmp_path / "out"
    _pack(open_source(str(corpus.folder)), out)
    sidecar = json.loads((out / "p-00000.tar.json").read_text())
    assert sidecar["num_samples"] == 4
    assert sidecar["sha256"] == hashlib.sha256((out / "p-00000.tar").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.mkdir(), "no images in the folder"),
        (lambda folder: None, "neither a folder nor a table nor tars"),
        (
            lambda folder: (folder.mkdir(), *((folder / f"{n}.csv").write_text("a,b\n1,2\n") for n in "ab")),
            "several tables",
        ),
        (lambda folder: (folder.mkdir(), (folder / "a.csv").write_text("file,de\n")), "no row that can be read"),
        (lambda folder: (folder.mkdir(), (folder / "a.csv").write_text("file,de\nx,y\n")), "no column holds images"),
    ],
)
def test_what_cannot_be_packed_is_refused(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "source")  # type: ignore[operator]
    with pytest.raises(CorpusError, match=message):
        open_source(str(tmp_path / "source"))
