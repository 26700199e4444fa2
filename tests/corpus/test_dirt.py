"""A generator of dirt: whatever is mixed into a tar, every key is kept once, or left out with a reason."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pea.corpus.reasons import REASONS
from pea.corpus.samples import ReadingRules, Rejected, Sample, read_tar
from pea.corpus.tars import scan_tar, tar_identity
from tests.corpus.tar_files import ALL, GOOD, captions, dropped, encoded, good_files, kept, outcome, picture, write_tar

IMAGE, TEXT = GOOD["png"], GOOD["json"]
RULES = ReadingRules(max_image_pixels=10_000, max_file_bytes=200_000)

Members = list[tuple[str, bytes | str]]
"""Name and content; for a link, what it points at behind ``link:``."""
Dirt = Callable[[str], tuple[Members, list[str], list[str]]]
"""Key -> members, keys that are kept, and keys that are left out (as often as they are)."""


def pair(key: str, image: bytes = IMAGE, text: bytes = TEXT, extension: str = "png") -> Members:
    return [(f"{key}.{extension}", image), (f"{key}.json", text)]


def loses(*members: tuple[str, bytes | str]) -> Dirt:
    """Members with `*` for the key, which is left out."""
    return lambda key: ([(name.replace("*", key), content) for name, content in members], [], [key])


def keeps(*members: tuple[str, bytes | str]) -> Dirt:
    return lambda key: ([(name.replace("*", key), content) for name, content in members], [key], [])


def bad_image(image: bytes, extension: str = "png") -> Dirt:
    return loses((f"*.{extension}", image), ("*.json", TEXT))


def bad_json(text: bytes) -> Dirt:
    return loses(("*.png", IMAGE), ("*.json", text))


def with_exif() -> bytes:
    buffer = io.BytesIO()
    picture(16, 8).save(buffer, "JPEG", exif=b"Exif\0\0broken")
    return buffer.getvalue()


KINDS: dict[str, Dirt] = {
    "good": keeps(("*.png", IMAGE), ("*.json", TEXT)),
    "json first": keeps(("*.json", TEXT), ("*.png", IMAGE)),
    "capital letters": keeps(("*.PNG", IMAGE), ("*.Json", TEXT)),
    "byte order mark": keeps(("*.png", IMAGE), ("*.json", b"\xef\xbb\xbf" + TEXT)),
    "odd exif": keeps(("*.jpg", with_exif()), ("*.json", TEXT)),
    "further files": keeps(
        ("*.cls", b"3"), ("*.depth.png", IMAGE), ("*.png", IMAGE), ("*.json", TEXT), ("*.z.npy", b"")
    ),
    "a jpeg called png": keeps(("*.png", encoded(picture(), "JPEG")), ("*.json", TEXT)),
    "a folder": lambda key: (pair(f"{key}/x"), [f"{key}/x"], []),
    "dotted": lambda key: (pair(f"{key}.v1.1") + pair(f"{key}.v1.2"), [f"{key}.v1.1", f"{key}.v1.2"], []),
    "dotted, one without json": lambda key: (
        [*pair(f"{key}.v.1"), (f"{key}.v.2.png", IMAGE)],
        [f"{key}.v.1"],
        [f"{key}.v.2"],
    ),
    "old folder name": lambda key: (pair(f"__data__/{key}"), [f"__data__/{key}"], []),
    "a Mac's halves": lambda key: ([(f"._{key}.png", b"x"), *pair(key), (f"__MACOSX/._{key}.png", b"x")], [key], []),
    "a Mac's halves between": lambda key: (
        [(f"d/._{key}.png", b""), (f"d/{key}.png", IMAGE), (f"d/._{key}.json", b""), (f"d/{key}.json", TEXT)],
        [f"d/{key}"],
        [],
    ),
    "no sample at all": lambda key: ([(".DS_Store", b""), (f"README-{key}", b"")], [], []),
    "a text alone": loses(("*.txt", b"x")),
    "no json": loses(("*.png", IMAGE)),
    "no image": loses(("*.json", TEXT)),
    "two images": loses(("*.png", IMAGE), ("*.jpg", encoded(picture(), "JPEG")), ("*.json", TEXT)),
    "empty image": bad_image(b""),
    "no image inside": bad_image(b"hello"),
    "cut image": bad_image(encoded(picture(90, 90), "JPEG")[:-40], "jpg"),
    "a gif": bad_image(encoded(picture(), "GIF")),
    "postscript": bad_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "jpg"),
    "many pixels": bad_image(encoded(picture(101, 100))),
    "long side": bad_image(encoded(picture(90, 10))),
    "many bytes": bad_image(IMAGE + bytes(250_000)),
    "empty json": bad_json(b""),
    "json of another kind": bad_json(b"[1]"),
    "deep json": bad_json(b'{"a":' + b"[" * 90 + b"]" * 90 + b"}"),
    "long json": bad_json(b" " * (4 << 20) + b"{}"),
    "repeated name": bad_json(b'{"a": 1, "a": 2}'),
    "not utf-8": bad_json(b'{"captions": {"en": "caf\xe9"}}'),
    "NaN and a long number": bad_json(b'{"captions": {"en": NaN}, "x": ' + b"9" * 5000 + b"}"),
    "no caption": bad_json(b"{}"),
    "caption is a number": bad_json(captions(en=3)),
    "lone surrogate": bad_json(rb'{"captions": {"en": "\ud800"}}'),
    "many languages": bad_json(captions(en="a", **{f"x{number}": "a" for number in range(300)})),
    "twice": lambda key: ([*pair(key), *pair(key)], [key], [key]),
    "a link for the image": loses(("*.png", "link:a.png"), ("*.json", TEXT)),
    "two links": loses(("*.png", "link:a.png"), ("*.json", "link:a.json")),
    "long name": lambda key: (pair(long := f"{key}-{'x' * 300}"), [long], []),
    "brackets and spaces": lambda key: (pair(odd := f"{key} [bold]\t{{0}}*?"), [odd], []),
    "not ASCII": lambda key: (pair(odd := f"{key}-键"), [odd], []),
}


def build(path: Path, kinds: Sequence[str], form: int) -> tuple[list[str], list[str]]:
    """Write a tar, with the files of two keys around all others; returns the keys to be kept and left out."""
    wanted, lost = ["good"], ["apart", "apart", "k\\udcff", "k\\udcff"]
    with tarfile.open(path, "w", format=form) as archive:
        _add(archive, [("apart.png", IMAGE), *pair("good"), *pair("k\udcff")])
        for number, kind in enumerate(kinds):
            members, good, bad = KINDS[kind](f"{number:03d}")
            wanted += good
            lost += bad
            _add(archive, members)
        _add(archive, [("apart.json", TEXT), *pair("k\udcff")])
    return wanted, lost


def _add(archive: tarfile.TarFile, members: Members) -> None:
    for name, content in members:
        info = tarfile.TarInfo(name)
        if isinstance(content, str):
            info.type, info.linkname = tarfile.SYMTYPE, content
            archive.addfile(info)
        else:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def check(path: Path, kinds: Sequence[str], form: int = tarfile.PAX_FORMAT) -> None:
    wanted, lost = build(path, kinds, form)
    told: list[str] = []
    results = list(read_tar(path, ALL, required=("en",), rules=RULES, in_flight=told.append, expect=tar_identity(path)))
    found = [each.key for each in results if isinstance(each, Sample)]
    rejected = [each for each in results if isinstance(each, Rejected)]
    assert sorted(found) == sorted(wanted)
    assert sorted(each.key for each in rejected) == sorted(lost)
    assert {each.reason for each in rejected} <= REASONS.keys()
    assert all("0x7" not in each.detail for each in rejected)
    contents = scan_tar(path)
    assert set(contents.keys) == {*wanted, *lost}
    assert set(found) <= set(told), "a key is told before it is decoded"
    assert outcome(path, rules=RULES, required=("en",)) == outcome(path, rules=RULES, required=("en",))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(tmp_path: Path, kind: str) -> None:
    check(tmp_path / "a.tar", ["good", kind, "good"])


def test_there_are_many_kinds() -> None:
    assert len(KINDS) >= 40


@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=30), st.sampled_from([1, 2]))
@settings(max_examples=12)
def test_counts_add_up(tmp_path_factory: pytest.TempPathFactory, kinds: list[str], form: int) -> None:
    check(tmp_path_factory.mktemp("dirt") / "a.tar", kinds, form)


@pytest.mark.slow
def test_counts_add_up_for_long(tmp_path: Path) -> None:
    """Forty tars of a hundred keys."""
    chosen = random.Random(0)
    for _ in range(40):
        check(tmp_path / "a.tar", chosen.choices(sorted(KINDS), k=100), chosen.choice([1, 2]))


def test_a_json_lost_in_a_hole_is_counted(tmp_path: Path) -> None:
    """Bytes of members may be zeros: the key is still there, and left out with a reason."""
    path = write_tar(tmp_path / "a.tar", good_files("abc"))
    data = path.read_bytes()
    start = data.index(TEXT)
    path.write_bytes(data[:start] + bytes(len(TEXT)) + data[start + len(TEXT) :])
    assert (kept(path), dropped(path)) == (["b", "c"], [("a", "json_unreadable")])
