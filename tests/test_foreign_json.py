"""What is no JSON object is said in words, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.foreign_json import json_object, pointers_in

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def test_an_object_is_read() -> None:
    assert json_object('{"a": "猫", "b": -Infinity}') == {"a": "猫", "b": float("-inf")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not a JSON object but a list"),
        ("5", "not a JSON object but a number"),
        ("null", "not a JSON object but nothing"),
        ("", "an empty file"),
        (" \n", "an empty file"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
        (b"\xff\xfe{}", "can't decode"),
        (POINTER, "git-LFS pointer"),
    ],
)
def test_what_is_none_is_named(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        json_object(text)


def test_pointers_are_found_among_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text(POINTER)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "long.txt").write_text(POINTER + "x" * 2000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert pointers_in(tmp_path) == [tmp_path / "model.safetensors"]
