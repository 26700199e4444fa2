"""Who may import what, held by reading the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("pea", "stages", "data_tools") for path in sorted((ROOT / folder).rglob("*.py"))]
ONLY = {
    "ray": {"stages/cache_ray.py"},
    "accelerate": {path.relative_to(ROOT).as_posix() for path in ROOT.glob("stages/train_*.py")},
    "webdataset": {"pea/samples.py"},
}
"""Library -> the only files that import it."""
LIGHT = ("pea/errors.py", "pea/config", "pea/draws.py", "pea/samples.py", "pea/cache", "data_tools/inspect_cache")
"""What starts without the heavy libraries."""
HEAVY = {"torch", "ray", "diffusers", "transformers", "accelerate"}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    nodes = _tree(path).body if top_level_only else list(ast.walk(_tree(path)))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [path for path in SOURCES if path.is_relative_to(ROOT / "pea")], ids=_name)
def test_the_library_does_not_import_stages_or_tools(path: Path) -> None:
    assert {name.split(".")[0] for name in _imports(path)}.isdisjoint({"stages", "data_tools", "argparse", "rich"})


@pytest.mark.parametrize("library", ONLY)
def test_each_service_library_has_one_importer(library: str) -> None:
    importers = {_name(path) for path in SOURCES if library in {name.split(".")[0] for name in _imports(path)}}
    assert importers <= ONLY[library]


@pytest.mark.parametrize("path", [path for path in SOURCES if _name(path).startswith(LIGHT)], ids=_name)
def test_light_modules_do_not_import_heavy_libraries_at_the_top(path: Path) -> None:
    assert {name.split(".")[0] for name in _imports(path, top_level_only=True)}.isdisjoint(HEAVY)


def test_the_library_prints_nothing() -> None:
    for path in SOURCES:
        if path.is_relative_to(ROOT / "pea"):
            calls = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
            assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_hooks_are_registered_in_one_place() -> None:
    users = {_name(path) for path in SOURCES if "register_forward" in path.read_text("utf-8")}
    assert users <= {"pea/teacher.py"}
