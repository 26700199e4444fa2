"""Foreign text: what is shown of it, and the file names that it gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pea.errors import PeaError
from pea.foreign_text import file_name, visible

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(ANY_TEXT)
@example("\x1b[2J\x07\x9b\u2028\u202e\ud800\r\n")
def test_what_is_shown_commands_nothing(text: str) -> None:
    shown = visible(text)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or "\u202a" <= char <= "\u202e" for char in shown)
    shown.encode()


@pytest.mark.parametrize("text", ["雪地上的红烧狮子头", "👩‍👩‍👧 é", "a [b] \\ c", "שלום", ""])
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


def test_errors_are_shown_the_same_way() -> None:
    assert str(PeaError("no", where="a\x1b[2J", got="b\u202ec")) == r"a\x1b[2J: no; got b\u202ec"


@given(ANY_TEXT, ANY_TEXT)
@example("../../etc/passwd", "..")
@example("/absolute", "")
@example("ж" * 400, "ж" * 401)
@example("a b", "a-b")
@example("a~1", ".hidden")
@example("x\0y", "con")
def test_names_stay_in_their_folder_and_apart(one: str, other: str) -> None:
    name = file_name(one)
    assert Path("folder", name).parent == Path("folder") and not name.startswith(".") and "\0" not in name
    assert 0 < len(name.encode()) <= 200
    assert (file_name(other) == name) == (one == other)


def test_harmless_ids_keep_their_names() -> None:
    assert [file_name(text) for text in ("general-0001", "猫_2", "a.b")] == ["general-0001", "猫_2", "a.b"]
