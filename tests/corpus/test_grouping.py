"""Names to keys: what is one sample, what is none, and that nothing in between is lost unsaid."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from pea.corpus.grouping import split_name
from pea.corpus.tars import scan_tar, tar_keys
from pea.errors import CorpusError
from tests.corpus.tar_files import ALL, GOOD, dropped, good_files, kept, write_tar

IMAGE, TEXT = GOOD["png"], GOOD["json"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("k.jpg", ("k", "jpg")),
        ("k.JPG", ("k", "jpg")),
        ("./d.x/k.JSON", ("./d.x/k", "json")),
        ("img.v1.000001.jpg", ("img.v1.000001", "jpg")),
        ("__data__/k.jpg", ("__data__/k", "jpg")),
        ("k.", ("k", "")),
        ("README", None),
        ("d.x/README", None),
        ("._k.jpg", None),
        ("d/._k.jpg", None),
        ("d/.hidden.png", None),
        ("__MACOSX/k.jpg", None),
        ("d/__MACOSX/e/k.jpg", None),
    ],
)
def test_names(name: str, split: tuple[str, str] | None) -> None:
    assert split_name(name) == split


def files(*names: str) -> list[tuple[str, bytes]]:
    content = {"json": TEXT, "png": IMAGE}
    return [(name, content.get(name.rpartition(".")[2].lower(), b"x")) for name in names]


CASES: dict[str, tuple[tuple[str, ...], list[str], list[tuple[str, str]]]] = {
    "plain": (("a.png", "a.json", "b.json", "b.png"), ["a", "b"], []),
    "further files of a sample": (
        ("a.cls", "a.json", "a.png", "a.seg.png", "a.seg.x.npy", "a.txt", "b.json", "b.png"),
        ["a", "b"],
        [],
    ),
    "a further file first": (("a.depth.png", "a.json", "a.png"), ["a"], []),
    "a further file between": (("a.json", "a.depth.png", "a.png", "b.png", "b.json"), ["a", "b"], []),
    "two further files first": (("a.depth.png", "a.flow.png", "a.json", "a.png", "b.png", "b.json"), ["a", "b"], []),
    "further files first, but for nothing": (
        ("a.depth.png", "a.flow.png", "a.png", "b.png", "b.json"),
        ["b"],
        [("a.depth", "json_missing"), ("a.flow", "json_missing"), ("a", "json_missing")],
    ),
    "dotted keys": (("i.v1.1.png", "i.v1.1.json", "i.v1.2.png", "i.v1.2.json"), ["i.v1.1", "i.v1.2"], []),
    "dotted keys with further files": (
        ("i.1.json", "i.1.png", "i.1.seg.png", "i.1.txt", "i.2.cls.png", "i.2.json", "i.2.png"),
        ["i.1", "i.2"],
        [],
    ),
    "dotted keys, one without its json": (
        ("i.1.png", "i.1.json", "i.2.png", "i.3.png", "i.3.json"),
        ["i.1", "i.3"],
        [("i.2", "json_missing")],
    ),
    "a dotted key among the files of a plain one": (("i.png", "i.json", "i.1.png", "i.1.json"), ["i.1", "i"], []),
    "a file for all, then dotted keys": (
        ("i.json", "i.1.png", "i.1.json", "i.2.png", "i.2.json", "i.3.png"),
        ["i.1", "i.2"],
        [("i.3", "json_missing"), ("i", "image_missing")],
    ),
    "a name that only begins like another": (("k1.png", "k1.json", "k10.png", "k10.json"), ["k1", "k10"], []),
    "a folder that begins like a key": (("k.png", "k.json", "k.d/e.png", "k.d/e.json"), ["k", "k.d/e"], []),
    "a folder of the old name": (("__data__/a.png", "__data__/a.json"), ["__data__/a"], []),
    "a Mac's other halves": (
        ("d/._a.png", "d/a.png", "d/._a.json", "d/a.json", "__MACOSX/d/._a.png", ".DS_Store"),
        ["d/a"],
        [],
    ),
    "nothing but a readme": (("README.md", "a.png", "a.json"), ["a"], [("README", "json_missing")]),
    "twice": (("a.png", "a.json", "a.png", "a.json"), ["a"], [("a", "key_duplicate")]),
    "apart": (
        ("a.png", "b.png", "c.png", "c.json", "a.json", "b.json"),
        ["c"],
        [("a", "json_missing"), ("b", "json_missing"), ("a", "files_apart"), ("b", "files_apart")],
    ),
    "capital letters": (("a.PNG", "a.JSON", "b.Png", "b.png"), ["a"], [("b", "json_missing"), ("b", "key_duplicate")]),
}


@pytest.mark.parametrize("name", CASES)
def test_groups(tmp_path: Path, name: str) -> None:
    names, wanted, lost = CASES[name]
    path = write_tar(tmp_path / "a.tar", files(*names))
    assert sorted(kept(path)) == sorted(wanted)
    assert dropped(path) == lost
    assert set(scan_tar(path).keys) == {*wanted, *(key for key, _ in lost)}


def test_capital_extensions(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.PNG", IMAGE), ("a.JSON", TEXT)])
    assert kept(path) == ["a"]


def test_images_first_and_jsons_after_is_said_in_one_line(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(9)] + [f"{number}.json" for number in range(9)]
    path = write_tar(tmp_path / "a.tar", files(*names))
    for attempt in (kept, scan_tar):
        with pytest.raises(CorpusError, match=r"do not lie side by side; got 9 keys .* --sort=name"):
            attempt(path)


def test_files_that_wait_for_others_are_not_kept_in_memory(tmp_path: Path) -> None:
    """Keys that are the same up to the first dot may be as many as a tar holds."""
    path = write_tar(tmp_path / "a.tar", [(f"i.{number}.png", bytes(1 << 20)) for number in range(40)])
    tracemalloc.start()
    assert len(dropped(path)) == 40
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_key_of_absurd_length(tmp_path: Path) -> None:
    keys = ["x" * 2000 + tail for tail in "ab"]
    path = write_tar(tmp_path / "a.tar", good_files([*keys, "c"]))
    assert kept(path) == ["c"]
    (one, reason), (other, _) = dropped(path)
    assert reason == "key_too_long" and one != other and len(one) < 300
    assert list(scan_tar(path).keys) == [one, other, "c"]


def test_keys_as_older_caches_have_them(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", files("i.v1.1.png", "i.v1.1.json", "i.v1.2.png", "b.png"))
    assert tar_keys(path, None) == ["i", "b"]
    assert tar_keys(path, {"version": 2, "image_formats": ["PNG"]}) == ["i.v1.1", "i.v1.2", "b"]
    assert kept(path) == ["i.v1.1"] and ALL
