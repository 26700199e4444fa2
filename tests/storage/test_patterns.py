"""Names that stand for many, on disks and in buckets alike."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pea.errors import LocationError, LocationMissingError
from pea.storage import Location
from pea.storage.patterns import expand, find

FILES = (
    "a.tar",
    "b.tar",
    "b.txt",
    "part-00.tar",
    "part-01.tar",
    "part-10.tar",
    "sub/c.tar",
    "sub/deep/d.tar",
    ".h.tar",
)


@pytest.fixture
def corpus(root: Location) -> Location:
    for name in FILES:
        (root / name).write_text(name)
    return root


class TestContract:
    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("a.tar", "a.tar"),
            ("*.tar", "a.tar b.tar part-00.tar part-01.tar part-10.tar"),
            ("part-0?.tar", "part-00.tar part-01.tar"),
            ("part-[01][!1].tar", "part-00.tar part-10.tar"),
            ("part-{00..01}.tar", "part-00.tar part-01.tar"),
            ("{a,b}.tar", "a.tar b.tar"),
            ("{a*,part-1?}.tar", "a.tar part-10.tar"),
            ("*/*.tar", "sub/c.tar"),
            ("**/*.tar", "a.tar b.tar part-00.tar part-01.tar part-10.tar sub/c.tar sub/deep/d.tar"),
            ("sub/**", "sub/c.tar sub/deep/d.tar"),
            ("s*/deep/*", "sub/deep/d.tar"),
            (".*.tar", ".h.tar"),
            ("nothing*", ""),
            ("nowhere/*.tar", ""),
        ],
    )
    def test_a_pattern_finds_what_it_means(self, corpus: Location, pattern: str, expected: str) -> None:
        assert [place.relative_to(corpus) for place in find(f"{corpus}/{pattern}")] == sorted(expected.split())

    @pytest.mark.parametrize("pattern", ["missing.tar", "part-{00..02}.tar"])
    def test_a_plain_name_has_to_exist(self, corpus: Location, pattern: str) -> None:
        with pytest.raises(LocationMissingError):
            find(f"{corpus}/{pattern}")


@pytest.mark.parametrize("name", ["[1].tar", "what?.tar", "*.tar"])
def test_a_file_of_that_very_name_is_taken(tmp_path: Path, name: str) -> None:
    for each in (name, "1.tar", "other.tar"):
        (tmp_path / each).write_bytes(b"")
    assert find(str(tmp_path / name)) == [Location.parse(tmp_path / name)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("s3://b/{00008..00011}.tar", [f"s3://b/{number:05d}.tar" for number in range(8, 12)]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("{1..9..4}", ["1", "5", "9"]),
        ("plain", ["plain"]),
        ("{single}", ["{single}"]),
        ("a\\b{1,2}", ["a\\b1", "a\\b2"]),
    ],
)
def test_braces_are_expanded(pattern: str, expected: list[str]) -> None:
    assert expand(pattern) == expected


@pytest.mark.parametrize("pattern", ["{1..2", "1..2}", "{0..999999999999}", "{0..9999}{0..9999}", "{1..3}" * 40])
def test_braces_that_cannot_be_meant_are_refused(pattern: str) -> None:
    with pytest.raises(LocationError):
        expand(pattern)


@given(st.text(alphabet="{},.019ab\\", max_size=24))
def test_any_braces_end_in_names_or_in_our_error(pattern: str) -> None:
    try:
        names = expand(pattern)
    except LocationError:
        return
    assert all(isinstance(name, str) for name in islice(names, 10))


def test_an_unknown_scheme_is_refused_before_anything_is_listed() -> None:
    with pytest.raises(LocationError, match="unknown scheme ftp://"):
        find("ftp://x/{00..99}.tar")
