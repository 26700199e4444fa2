"""Samples: every bad input has its defined outcome; images land in the right bucket."""

from __future__ import annotations

import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pea.corpus.samples import (
    REASONS,
    ReadingRules,
    Rejected,
    Sample,
    bucket_name,
    choose_bucket,
    expand_tars,
    place_in_bucket,
    read_tar,
    tar_identity,
)
from pea.corpus.tars import scan_tar
from pea.draws.recipe import crop_words
from pea.errors import CorpusError
from tests.corpus.tar_files import ALL, GOOD, captions, encoded, good_tar, picture, write_tar


def read_one(tmp_path: Path, files: dict[str, bytes], **options: Any) -> Sample | Rejected:
    path = write_tar(tmp_path / "one.tar", [(f"k.{extension}", data) for extension, data in files.items()])
    (result,) = read_tar(path, ALL, required=("en",), **options)
    return result


def test_a_good_sample(tmp_path: Path) -> None:
    sample = read_one(tmp_path, GOOD)
    assert isinstance(sample, Sample)
    assert (sample.id, sample.captions) == ("one/k", {"en": "a cat", "zh": "一只猫"})
    assert sample.image.mode == "RGB" and sample.image.getpixel((0, 0)) == (200, 100, 50)


def test_caption_fields(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("k.png", GOOD["png"]), ("k.json", b'{"text": {"de": "Katze"}, "en": 3}')])
    (sample,) = read_tar(path, {"de": "text.de", "fr": "text.fr"})
    assert isinstance(sample, Sample) and sample.captions == {"de": "Katze"}
    (rejected,) = read_tar(path, {"en": "en"})
    assert isinstance(rejected, Rejected) and rejected.reason == "caption_not_text"


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises 30,000 x 30,000 px."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "zero-byte image": ({"png": b""}, "image_empty"),
    "not an image": ({"png": b"hello"}, "image_undecodable"),
    "truncated image": ({"png": encoded(Image.effect_noise((64, 64), 50))[:900]}, "image_undecodable"),
    "image bomb": ({"png": bomb()}, "image_too_large"),
    "too many pixels": ({"png": encoded(picture(101, 100))}, "image_too_large"),
    "absurd aspect ratio": ({"png": encoded(picture(90, 10))}, "aspect_ratio"),
    "two images": ({"jpg": encoded(picture(), "JPEG")}, "image_ambiguous"),
    "float image": ({"png": encoded(Image.new("F", (4, 4)), "TIFF")}, "image_undecodable"),
    "non-UTF-8 json": ({"json": b'{"captions": {"en": "caf\xe9"}}'}, "json_not_utf8"),
    "no json inside": ({"json": b"{"}, "json_unreadable"),
    "a list": ({"json": b"[1]"}, "json_unreadable"),
    "deep json": ({"json": b"[" * 100_000}, "json_unreadable"),
    "repeated name": ({"json": b'{"captions": {"en": "a", "en": "b"}}'}, "json_unreadable"),
    "no captions": ({"json": b"{}"}, "caption_missing"),
    "captions are no object": ({"json": b'{"captions": "a"}'}, "caption_missing"),
    "null caption": ({"json": captions(en=None)}, "caption_missing"),
    "empty caption": ({"json": captions(en="")}, "caption_missing"),
    "blank caption": ({"json": captions(en=" \n\t")}, "caption_missing"),
    "other language only": ({"json": captions(zh="猫")}, "caption_missing"),
    "caption is a number": ({"json": captions(en=3)}, "caption_not_text"),
    "lone surrogate": ({"json": rb'{"captions": {"en": "\ud800"}}'}, "caption_not_text"),
    "language is a path": ({"json": captions(**{"en": "a", "../x": "b"})}, "caption_not_text"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_its_reason(tmp_path: Path, name: str) -> None:
    changed, reason = BAD[name]
    result = read_one(tmp_path, {**GOOD, **changed}, rules=ReadingRules(max_image_pixels=10_000))
    assert isinstance(result, Rejected), result
    assert (result.tar, result.key, result.reason) == ("one", "k", reason)
    assert reason in REASONS


def test_missing_files_of_a_sample(tmp_path: Path) -> None:
    names = ["a.png", "b.json", "c.x.png", "c.json", "README"]
    path = write_tar(
        tmp_path / "m.tar", [(name, GOOD[name.rpartition(".")[2]] if "." in name else b"") for name in names]
    )
    results = [(r.key, r.reason) for r in read_tar(path, ALL) if isinstance(r, Rejected)]
    assert results == [
        *(("a", "json_missing"), ("b", "image_missing")),
        *(("c.x", "json_missing"), ("c", "image_missing")),
    ]


def test_duplicate_keys(tmp_path: Path) -> None:
    one = [("a.png", GOOD["png"]), ("a.json", GOOD["json"])]
    other = [("b.png", GOOD["png"]), ("b.json", GOOD["json"])]
    for files in (one + one + other, one + other + one):
        results = list(read_tar(write_tar(tmp_path / "d.tar", files), ALL))
        assert sorted(r.key for r in results if isinstance(r, Sample)) == ["a", "b"]
        assert [(r.key, r.reason) for r in results if isinstance(r, Rejected)] == [("a", "key_duplicate")]


def test_a_key_that_killed_a_process_is_rejected_unread(tmp_path: Path) -> None:
    path = good_tar(tmp_path / "k.tar", 3)
    told: list[str] = []
    results = list(read_tar(path, ALL, skip={"k1"}, in_flight=told.append))
    assert [(r.key, r.reason) for r in results if isinstance(r, Rejected)] == [("k1", "process_killed")]
    assert told == ["k0", "k2"]


def test_key_that_is_not_utf8(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "u.tar", [("k\udcff.png", GOOD["png"]), ("k\udcff.json", GOOD["json"])])
    (result,) = read_tar(path, ALL)
    assert isinstance(result, Rejected) and result.reason == "key_not_utf8"
    result.key.encode()


def test_image_modes_become_upright_rgb(tmp_path: Path) -> None:
    def read(data: bytes, kind: str = "png") -> Image.Image:
        files = {key: value for key, value in GOOD.items() if key != "png"}
        sample = read_one(tmp_path, {**files, kind: data})
        assert isinstance(sample, Sample), sample
        assert sample.image.mode == "RGB"
        return sample.image

    grey16 = Image.fromarray(np.full((4, 4), 32896, dtype=np.uint16))
    assert read(encoded(grey16)).getpixel((0, 0)) == (128, 128, 128)
    palette = picture().convert("P")
    assert np.allclose(read(encoded(palette)).getpixel((0, 0)), (200, 100, 50), atol=26)
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert read(encoded(Image.new("LA", (4, 4), (0, 128)))).getpixel((0, 0)) == (127, 127, 127)
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = read(encoded(cmyk, "JPEG"), "jpg").getpixel((4, 4))  # type: ignore[misc]
    assert red > 220 and green < 60 and blue < 60
    assert read(encoded(Image.new("1", (4, 4), 1))).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert read(encoded(picture(16, 8), "JPEG", exif=exif), "jpg").size == (8, 16)
    animated = encoded(picture(), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8))], lossless=True)
    assert read(animated, "webp").getpixel((0, 0)) == (200, 100, 50)


@given(st.floats(0, 1, exclude_max=True))
@settings(max_examples=30)
def test_a_truncated_tar_is_refused_wherever_it_ends(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    whole = good_tar(tmp_path_factory.mktemp("t") / "whole.tar")
    data = whole.read_bytes()
    end = len(data.rstrip(b"\0"))
    cut = whole.with_name("cut.tar")
    cut.write_bytes(data[: int(end * share)])
    with pytest.raises(CorpusError, match=r"cut\.tar"):
        list(read_tar(cut, ALL))
    with pytest.raises(CorpusError, match=r"cut\.tar"):
        scan_tar(cut)


def test_a_tar_cut_between_members_is_refused(tmp_path: Path) -> None:
    whole = good_tar(tmp_path / "whole.tar")
    with tarfile.open(whole) as archive:
        boundary = archive.getmembers()[4].offset
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:boundary])
    with pytest.raises(CorpusError, match="no end mark"):
        scan_tar(cut)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    whole = good_tar(tmp_path / "whole.tar")
    with tarfile.open(whole) as archive:
        boundary = archive.getmembers()[4].offset
    data = bytearray(whole.read_bytes())
    data[boundary + 3] ^= 1
    whole.write_bytes(data)
    with pytest.raises(CorpusError, match="no header"):
        scan_tar(whole)


@pytest.mark.parametrize("data", [b"", b"x" * 2000, b"\x1f\x8b" + b"0" * 600])
def test_a_file_that_is_no_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "no.tar").write_bytes(data)
    with pytest.raises(CorpusError, match=r"no\.tar"):
        scan_tar(tmp_path / "no.tar")
    with pytest.raises(CorpusError, match="no such tar"):
        scan_tar(tmp_path / "absent.tar")


def test_expand_tars(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "other/c.tar", "other/a.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = expand_tars([str(tmp_path / "b.tar"), str(tmp_path / "*.tar"), str(tmp_path / "other/c.tar")])
    assert [tar.name for tar in found] == ["a", "b", "c"]
    with pytest.raises(CorpusError, match="no such tar"):
        expand_tars([str(tmp_path / "z*.tar")])
    with pytest.raises(CorpusError, match="two tars are named a"):
        expand_tars([str(tmp_path / "**/*.tar")])


def test_tar_identity(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"abc")
    identity = tar_identity(tmp_path / "a.tar")
    assert (identity.name, identity.size_bytes) == ("a", 3)
    assert identity.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(CorpusError, match="no such tar"):
        tar_identity(tmp_path / "none.tar")


def test_choose_bucket() -> None:
    buckets = [(64, 64), (48, 80), (80, 48), (128, 128)]
    assert choose_bucket(100, 100, buckets) == (64, 64)
    assert choose_bucket(120, 120, buckets) == (128, 128)
    assert choose_bucket(50, 90, buckets) == (48, 80)
    assert choose_bucket(90, 50, buckets) == (80, 48)


@given(st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=40)
def test_placed_images_fill_their_bucket(height: int, width: int) -> None:
    placed = place_in_bucket(Image.new("RGB", (width, height), (255, 0, 255)), [(16, 16), (12, 20), (20, 12)])
    assert placed.pixels.shape == (3, *placed.bucket) and placed.pixels.dtype == np.float32
    assert np.allclose(placed.pixels[0], 1) and np.allclose(placed.pixels[1], -1)
    assert placed.time_ids.tolist()[:2] == [height, width] and placed.time_ids.tolist()[4:] == list(placed.bucket)
    assert (placed.time_ids[2:4] >= 0).all()


def test_placing_cuts_the_centre() -> None:
    image = Image.fromarray(np.repeat(np.arange(16, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2))
    placed = place_in_bucket(image, [(8, 8)])
    assert placed.time_ids.tolist() == [8, 16, 0, 4, 8, 8]
    assert np.allclose(placed.pixels[0, 0] * 127.5 + 127.5, np.arange(4, 12))
    same = place_in_bucket(image, [(8, 16)])
    assert same.time_ids.tolist() == [8, 16, 0, 0, 8, 16]
    assert bucket_name((8, 16)) == "8x16"


def test_a_random_crop_reaches_every_place_and_is_the_samples_own() -> None:
    image = Image.fromarray(np.repeat(np.arange(12, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2))
    lefts = []
    for number in range(60):
        placed = place_in_bucket(image, [(8, 8)], crop=crop_words(0, f"t/{number}"))
        left = int(placed.time_ids[3])
        assert placed.time_ids.tolist() == [8, 12, 0, left, 8, 8]
        assert np.allclose(placed.pixels[0, 0] * 127.5 + 127.5, np.arange(left, left + 8))
        lefts.append(left)
    assert set(lefts) == {0, 1, 2, 3, 4}
    tall = place_in_bucket(image.transpose(Image.Transpose.ROTATE_90), [(8, 8)], crop=(2**64 - 1, 0))
    assert tall.time_ids.tolist()[2:4] == [4, 0]
    assert crop_words(0, "t/1") == crop_words(0, "t/1") != crop_words(1, "t/1")


def test_every_reason_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/drop_reasons.md").read_text("utf-8")
    assert [name for name, meaning in REASONS.items() if f"| `{name}` | {meaning} |" not in text] == []


def test_import_is_light() -> None:
    code = "import pea.corpus.samples, sys; print({'torch', 'ray', 'diffusers', 'webdataset'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
