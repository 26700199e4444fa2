"""YAML of anybody's making: refused in one line, and at once, where it is more than settings are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pea.config import load_config
from pea.config.yaml_text import DEEPEST, MOST_BYTES, MOST_VALUES, parse_yaml, read_yaml
from pea.errors import ConfigError
from stages.pipeline.definition import load_pipeline
from stages.sweep_study import read_study

LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
"""Ten lines that stand for four thousand million values."""
TOWER = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2 * DEEPEST))
"""No line is deep."""
BOMBS = {
    "laughs": (LAUGHS, f"more than {MOST_VALUES} values, aliases expanded"),
    "tower": (TOWER, f"more than {DEEPEST} levels"),
    "deep": ("a: " + "[" * 500 + "]" * 500, f"more than {DEEPEST} levels"),
    "deeper": ("a: " + "[" * 1_000_000, f"more than {DEEPEST} levels"),
    "deep without brackets": ("\n".join(f"{' ' * n}a:" for n in range(500)), f"more than {DEEPEST} levels"),
    "endless": ("a: &a [*a]", "line 1: a value that contains itself"),
    "endless mapping": ("a: &a {b: *a}", "line 1: a value that contains itself"),
    "keys": ("? &a [x]\n: *a", "a key must be a plain word"),
    "digits": (f"a: {'9' * 5000}", "not valid YAML"),
    "large": ("#" * (MOST_BYTES + 1), "larger file"),
}


def _read_setup(path: Path) -> Any:
    return load_config(path)


@pytest.mark.parametrize(
    ("name", "read"),
    [*((name, _read_setup) for name in BOMBS), ("deeper", load_pipeline), ("deeper", read_study)],
)
def test_a_bomb_is_one_line_and_takes_no_time(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    text, message = BOMBS[name]
    (tmp_path / "file.yaml").write_text(text)
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "file.yaml")
    assert time.monotonic() - started < 5
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["laughs", "endless"])
def test_an_override_is_held_to_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.yaml").write_text("run_dir: x")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(tmp_path / "file.yaml", [f"cache={{{', '.join(BOMBS[name][0].splitlines())}}}"])


def test_what_people_write_passes() -> None:
    shared = "base: &base {a: 1, b: [1, 2]}\nx: *base\ny: *base\n"
    assert parse_yaml(shared, where="x")["y"] == {"a": 1, "b": [1, 2]}
    many = "tars:\n" + "".join(f"- tars/{n:06d}.tar\n" for n in range(2000))
    assert len(parse_yaml(many, where="x")["tars"]) == 2000
    deep = "a: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert parse_yaml(deep, where="x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", "cannot read the setup"),
        (None, "cannot read the setup"),
        (b"- a", "not a setup"),
        (b"", "not a setup"),
    ],
)
def test_what_is_no_mapping_is_named(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "file.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path, "setup")


def test_no_other_place_parses_yaml() -> None:
    """``yaml.safe_load`` has no bounds; settings are read by ``read_yaml`` alone."""
    root = Path(__file__).parents[2]
    sources = [path for folder in ("pea", "stages", "data_tools") for path in (root / folder).rglob("*.py")]
    loads = [str(path.relative_to(root)) for path in sources if "safe_load" in path.read_text("utf-8")]
    assert not loads


@pytest.mark.parametrize(("text", "got"), [("", "nothing"), ("- a", "a list"), ("words", "a text"), ("7", "a number")])
def test_what_is_no_mapping_is_called_as_people_call_it(text: str, got: str) -> None:
    with pytest.raises(ConfigError, match=f"expected key: value lines; got {got}$"):
        parse_yaml(text, where="file")
