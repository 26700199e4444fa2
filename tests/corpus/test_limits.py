"""What a tar from the web may ask for: decoders, bytes, depth, languages; and who is blamed."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, features

from pea.config import CacheConfig, CorpusConfig
from pea.corpus import byte_streams
from pea.corpus.images import check_formats, place_in_bucket
from pea.corpus.rules import DEFAULT_FORMATS, EXTENSIONS, MAX_LANGUAGES, ImageFormat
from pea.corpus.samples import ReadingRules, Rejected, Sample, read_tar, tar_identity, tar_name
from pea.corpus.tars import expected_samples, scan_tar
from pea.errors import ConfigError, CorpusError
from pea.storage import Location
from tests.corpus.tar_files import (
    ALL,
    GOOD,
    captions,
    dropped,
    encoded,
    good_files,
    good_tar,
    kept,
    outcome,
    picture,
    write_tar,
)

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


DEFAULTS = ReadingRules()


def read_files(folder: Path, files: dict[str, bytes], rules: ReadingRules = DEFAULTS) -> Sample | Rejected:
    path = write_tar(folder / "one.tar", [(f"k.{extension}", data) for extension, data in files.items()])
    (result,) = read_tar(path, ALL, rules=rules)
    return result


@pytest.mark.parametrize("kind", ["EPS", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO"])
def test_only_promised_formats_are_decoded(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    data = EPS if kind == "EPS" else encoded(picture(), kind)
    monkeypatch.setitem(Image.OPEN, kind, (lambda *_: pytest.fail("the decoder was called"), Image.OPEN[kind][1]))
    result = read_files(tmp_path, {"jpg": data, "json": GOOD["json"]})
    assert isinstance(result, Rejected) and result.reason == "image_undecodable"
    assert result.detail == "not JPEG, PNG, WEBP, or damaged"


def test_formats_can_be_added(tmp_path: Path) -> None:
    tiff = encoded(picture(), "TIFF")
    more = ReadingRules(image_formats=(*DEFAULT_FORMATS, "TIFF"))
    for extension in ("tif", "tiff", "jpg"):
        assert isinstance(read_files(tmp_path, {extension: tiff, "json": GOOD["json"]}, more), Sample)
    refused = read_files(tmp_path, {"tif": tiff, "json": GOOD["json"]})
    assert isinstance(refused, Rejected) and refused.reason == "image_missing"


@pytest.mark.parametrize("name", list(get_args(ImageFormat)))
def test_every_format_that_can_be_named_works(tmp_path: Path, name: ImageFormat) -> None:
    rules = ReadingRules(image_formats=(name,))
    if name == "AVIF" and not features.check("avif"):
        with pytest.raises(ConfigError, match="cannot read AVIF"):
            check_formats(rules)
        return
    for extension in EXTENSIONS[name]:
        found = read_files(tmp_path, {extension: encoded(picture(64, 64), name), "json": GOOD["json"]}, rules)
        assert isinstance(found, Sample), found


def test_formats_are_a_setting() -> None:
    rules = CorpusConfig(tars=("a.tar",), image_formats=("PNG", "TIFF")).reading_rules(CacheConfig(max_file_bytes=7))
    assert (rules.image_extensions, rules.max_file_bytes) == (("png", "tif", "tiff"), 7)
    assert rules.identity() == {"version": 2, "image_formats": ["PNG", "TIFF"], "max_file_bytes": 7}
    with pytest.raises(ValueError, match="image_formats"):
        CorpusConfig.model_validate({"tars": ["a.tar"], "image_formats": ["PNG", "EPS"]})


def test_a_decoder_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pea.corpus.images.features.check", lambda name: name != "webp")
    with pytest.raises(ConfigError, match="Pillow cannot read WEBP"):
        kept(good_tar(tmp_path / "a.tar"))


def test_files_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    files = [("a.png", GOOD["png"]), ("a.mp4", bytes(30 << 20)), ("a.json", GOOD["json"]), ("b.npy", bytes(30 << 20))]
    path = write_tar(tmp_path / "a.tar", files)
    for options in ({}, {"expect": tar_identity(path)}):
        tracemalloc.start()
        assert kept(path, **options) == ["a"]
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
        tracemalloc.stop()


def test_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.png", bytes(30 << 20)), ("a.json", GOOD["json"]), *good_files(["b"])])
    rules = ReadingRules(max_file_bytes=1 << 20)
    tracemalloc.start()
    assert (kept(path, rules=rules), dropped(path, rules=rules)) == (["b"], [("a", "file_too_large")])
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()
    path = write_tar(tmp_path / "b.tar", [("a.json", b" " * (5 << 20)), ("a.png", GOOD["png"])])
    assert dropped(path) == [("a", "file_too_large")]


def nested(levels: int) -> bytes:
    return b'{"captions": {"en": "[[[{{{\\"[[["}, "x": ' + b"[" * levels + b"]" * levels + b"}"


def test_depth_of_a_json(tmp_path: Path) -> None:
    assert isinstance(read_files(tmp_path, {"png": GOOD["png"], "json": nested(63)}), Sample)
    wide = b'{"captions": {"en": "a"}, "x": [' + b"[]," * 1000 + b"[]]}"
    assert isinstance(read_files(tmp_path, {"png": GOOD["png"], "json": wide}), Sample)
    limit = sys.getrecursionlimit()
    try:
        for allowed in (limit, 20_000):
            sys.setrecursionlimit(allowed)
            for levels in (64, 900, 100_000):
                found = read_files(tmp_path, {"png": GOOD["png"], "json": nested(levels)})
                assert isinstance(found, Rejected) and found.detail == "nested deeper than 64 levels"
    finally:
        sys.setrecursionlimit(limit)


def test_languages_of_a_json_and_of_a_tar(tmp_path: Path) -> None:
    many = {f"x{number}": "a" for number in range(3000)}
    refused = read_files(tmp_path, {"png": GOOD["png"], "json": captions(en="a", **many)})
    assert isinstance(refused, Rejected) and refused.reason == "languages_too_many"
    files = []
    for number in range(3):
        some = {f"x{number}-{each}": "a" for each in range(100)}
        files += [(f"{number}.png", GOOD["png"]), (f"{number}.json", captions(en="a", **some))]
    path = write_tar(tmp_path / "a.tar", files)
    assert dropped(path) == [("2", "languages_too_many")]
    found = {language for item in read_tar(path, ALL) for language in getattr(item, "captions", ())}
    assert len(found) <= MAX_LANGUAGES
    wanted = list(read_tar(path, {"en": "captions.en"}))
    assert all(isinstance(item, Sample) for item in wanted), "what was asked for by name is not counted among strangers"


class LoggedStream(io.RawIOBase):
    """A stream that can only read, and tells when which bytes are asked for."""

    def __init__(self, data: bytes, log: list[Any]) -> None:
        self._data, self._log = io.BytesIO(data), log

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        start = self._data.tell()
        num_read = self._data.readinto(buffer)
        self._log.append((start, start + num_read))
        return num_read


def test_a_key_is_told_before_its_first_byte_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = good_tar(tmp_path / "a.tar", 3)
    data, log = path.read_bytes(), list[Any]()
    monkeypatch.setattr(Location, "open_stream", lambda _: LoggedStream(data, log))
    expected = [f"k{number}" for number in range(3)]
    assert [item.key for item in read_tar(path, ALL, in_flight=log.append)] == expected
    assert [each for each in log if isinstance(each, str)] == expected
    begins = {f"k{number}": data.index(f"k{number}.png".encode()) for number in range(3)}
    current = ""
    for event in log:
        if isinstance(event, str):
            current = event
        elif event[1] - event[0] > 512:
            owner = max((key for key in begins if begins[key] < event[0]), key=lambda key: begins[key])
            assert owner == current or event[0] > begins["k2"] + 4096, "bytes of a key that was not told"


def test_a_key_that_comes_again_is_told_again(tmp_path: Path) -> None:
    """Whoever takes a sample may tell of others meanwhile."""
    log: list[str] = []
    samples = read_tar(write_tar(tmp_path / "a.tar", good_files("aa")), ALL, in_flight=log.append)
    while next(samples, None):
        log.append("handed out")
    assert log == ["a", "handed out", "a", "handed out"]


def test_a_stream_that_can_only_read_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = good_tar(tmp_path / "a.tar", 3)
    expected, data = outcome(path), path.read_bytes()
    monkeypatch.setattr(Location, "open_stream", lambda _: LoggedStream(data, []))
    assert outcome(path) == expected
    assert scan_tar(path).keys == ("k0", "k1", "k2")


def test_pixels_above_the_limit_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for kind, extension in (("PNG", "png"), ("WEBP", "webp"), ("JPEG", "jpg")):
        image = encoded(picture(60, 60), kind)  # 3.6 times Pillow's limit: an error of its own
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read_files(tmp_path, {extension: image, "json": GOOD["json"]})
            assert isinstance(found, Sample) and found.image.size == (60, 60)
            limits = ReadingRules(max_image_pixels=3599)
            refused = read_files(tmp_path, {extension: image, "json": GOOD["json"]}, limits)
        assert isinstance(refused, Rejected) and refused.reason == "image_too_large"
        assert Image.MAX_IMAGE_PIXELS == 1000


def test_details_hold_no_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def confused(*_: object, **__: object) -> Image.Image:
        raise OSError(f"cannot do with {object()!r}")

    monkeypatch.setattr("pea.corpus.images.Image.open", confused)
    found = read_files(tmp_path, GOOD)
    assert isinstance(found, Rejected) and found.detail == "OSError: cannot do with <object object at 0x…>"


def test_the_size_that_the_image_had_before(tmp_path: Path) -> None:
    def read(image: bytes, **more: object) -> Sample:
        text = json.dumps({"captions": {"en": "a"}, **more}).encode()
        found = read_files(tmp_path, {"jpg": image, "json": text})
        assert isinstance(found, Sample)
        return found

    plain = encoded(picture(24, 16), "JPEG")
    assert read(plain, original_width=2400, original_height=1600).original_size == (1600, 2400)
    placed = place_in_bucket(picture(24, 16), [(16, 16)], (1600, 2400))
    assert placed.time_ids.tolist() == [1600, 2400, 0, 4, 16, 16]
    for bad in (None, 0, -1, 1.5, "24", True, 10**9):
        assert read(plain, original_width=bad, original_height=1600).original_size is None
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side, as the json's numbers are
    turned = read(encoded(picture(24, 16), "JPEG", exif=exif), original_width=2400, original_height=1600)
    assert (turned.image.size, turned.original_size) == ((16, 24), (2400, 1600))
    path = write_tar(
        tmp_path / "old.tar", [("k.jpg", plain), ("k.json", b'{"original_width": 9, "original_height": 9}')]
    )
    (old,) = read_tar(path, ALL, rules=ReadingRules(original_size=False))
    assert isinstance(old, Sample) and old.original_size is None


def test_orientation_in_xmp_and_a_profile(tmp_path: Path) -> None:
    """The first is honoured; the second is not, as the page says: values are taken for sRGB."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    found = read_files(tmp_path, {"jpg": encoded(picture(16, 8), "JPEG", xmp=xmp), "json": GOOD["json"]})
    assert isinstance(found, Sample) and found.image.size == (8, 16)
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_profile = read_files(tmp_path, {"png": encoded(picture(), icc_profile=profile), "json": GOOD["json"]})
    without = read_files(tmp_path, GOOD)
    assert isinstance(with_profile, Sample) and isinstance(without, Sample)
    assert np.array_equal(with_profile.image, without.image)


def test_a_phone_image_of_several_frames(tmp_path: Path) -> None:
    mpo = encoded(picture(), "MPO", save_all=True, append_images=[picture(4, 4)])
    assert isinstance(read_files(tmp_path, {"jpg": mpo, "json": GOOD["json"]}), Sample)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_gzip(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = good_tar(tmp_path / "plain.tar", 4)
    expected, data = outcome(plain), gzip.compress(plain.read_bytes(), mtime=0)
    path = tmp_path / name
    path.write_bytes(data)
    assert tar_name(path) == "a"
    assert outcome(path) == outcome(path, expect=tar_identity(path)) == expected
    assert expected_samples(path) >= 1
    in_parts = [gzip.compress(plain.read_bytes()[at : at + 3000]) for at in range(0, plain.stat().st_size, 3000)]
    path.write_bytes(b"".join(in_parts))
    assert outcome(path) == expected
    broken = [data[:cut] for cut in range(2, len(data), 97)]
    broken += [data + b"x", data + bytes(512), data * 2, b"".join(in_parts[:2]), data[:-1] + b"x"]
    for each in broken:
        path.write_bytes(each)
        with pytest.raises(CorpusError, match=r"a\.t(ar|gz)"):
            outcome(path)
        with pytest.raises(CorpusError):
            scan_tar(path)
    for at in range(12, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        with suppress(CorpusError):  # but for the bits that fill the last byte of a stream: nothing depends on them
            assert outcome(path) == expected


def test_a_small_file_that_unpacks_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_streams, "_BOMB_BYTES", 1 << 20)
    path = write_tar(tmp_path / "a.tar", [("a.mp4", bytes(20 << 20)), *good_files(["b"])])
    path.write_bytes(gzip.compress(path.read_bytes()))
    tracemalloc.start()
    with pytest.raises(CorpusError, match="unpacks to far more"):
        outcome(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"PK\3\4", "zip")],
)
def test_other_compressions_are_refused_by_name(tmp_path: Path, start: bytes, name: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(start + bytes(2000))
    with pytest.raises(CorpusError, match=f"a tar with {name} is not read.* Unpack it with"):
        outcome(path)


def test_a_tar_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = good_tar(tmp_path / "a.tar", 400)
    samples = read_tar(path, ALL)
    next(samples)
    with path.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(CorpusError, match="the tar changed while it was read"):
        list(samples)


def test_a_tar_that_is_not_the_one_of_the_manifest(tmp_path: Path) -> None:
    path = good_tar(tmp_path / "a.tar", 3)
    before = tar_identity(path)
    assert len(kept(path, expect=before)) == 3
    good_tar(path, 2)
    with pytest.raises(CorpusError, match="the tar has changed since the cache was begun"):
        kept(path, expect=before)
