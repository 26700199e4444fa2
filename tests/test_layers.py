"""Who may import what, held by reading the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from pea import file_names

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("pea", "stages", "data_tools") for path in sorted((ROOT / folder).rglob("*.py"))]
ROOMS = (
    *(
        "pea.copies",
        "pea.plurals",
        "pea.spelling",
        "pea.foreign_text",
        "pea.foreign_json",
        "pea.file_names",
        "pea.errors",
        "pea.cpu",
        "pea.storage",
        "pea.draws",
        "pea.corpus",
        "pea.config",
        "pea.models",
    ),
    *(
        "pea.sketch",
        "pea.cache",
        "pea.attention",
        "pea.collect",
        "pea.batches",
        "pea.training",
        "pea.evaluation",
        "pea.costs",
    ),
    *("pea.pipeline", "data_tools", "stages"),
)
"""From the ground up: nothing imports upwards."""
ONLY = {
    "ray": ("stages/cluster/",),
    "accelerate": ("stages/training/", "stages/train_adapter.py"),
    "webdataset": ("pea/corpus/",),
}
"""Library -> the only places that import it."""
LIGHT = (
    "pea/errors.py",
    "pea/config",
    "pea/draws/recipe.py",
    "pea/corpus/samples.py",
    "pea/storage",
    "pea/cache",
    "stages/inspect_cache",
)
"""What starts without the heavy libraries."""
LOADING = ("pea/models/loading.py", "pea/models/unfilled.py")
HEAVY = {"torch", "ray", "diffusers", "transformers", "accelerate"}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(_tree(path)))


@cache
def _imports(path: Path, *, top_level_only: bool = False) -> tuple[str, ...]:
    return tuple(_imported(_tree(path).body if top_level_only else _nodes(path)))


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _room(module: str) -> str | None:
    """The room of the longest name that fits; None for other people's modules."""
    fitting = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


def _module(path: Path) -> str:
    return _name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_a_room_imports_only_from_rooms_below_it() -> None:
    upwards = [f"{_name(path)} imports {name}" for path in SOURCES if _module(path) != "pea" for name in _above(path)]
    assert not upwards


def _above(path: Path) -> list[str]:
    own = ROOMS.index(_room(_module(path)) or "")
    return [name for name in _imports(path) if (room := _room(name)) and ROOMS.index(room) > own]


def test_every_module_is_in_a_room() -> None:
    assert not [_name(path) for path in SOURCES if _module(path) != "pea" and not _room(_module(path))]


def test_modules_do_not_import_each_other_in_circles() -> None:
    """Imports inside functions and for annotations count: they are as much of a circle to a reader."""
    names = {_module(path) for path in SOURCES}
    arrows = {_module(path): _imported_modules(path, names) for path in SOURCES}
    while ends := [name for name, targets in arrows.items() if not targets]:
        for name in ends:
            del arrows[name]
        arrows = {name: targets - set(ends) for name, targets in arrows.items()}
    assert not arrows, f"circles among {', '.join(sorted(arrows))}"


def _imported_modules(path: Path, names: set[str]) -> set[str]:
    found = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            deeper = {f"{node.module}.{alias.name}" for alias in node.names} & names
            found |= deeper or {node.module}
    return (found & names) - {_module(path)}


def test_the_library_has_no_command_line() -> None:
    library = [path for path in SOURCES if path.is_relative_to(ROOT / "pea")]
    assert len(library) > 100
    assert not [_name(path) for path in library if {"argparse", "rich"} & _libraries(path)]


@pytest.mark.parametrize("library", ONLY)
def test_each_service_library_has_one_importer(library: str) -> None:
    importers = {_name(path) for path in SOURCES if library in {name.split(".")[0] for name in _imports(path)}}
    assert not [name for name in importers if not name.startswith(ONLY[library])]


def test_light_modules_do_not_import_heavy_libraries_at_the_top() -> None:
    light = [path for path in SOURCES if _name(path).startswith(LIGHT)]
    assert all(any(_name(path).startswith(place) for path in light) for place in LIGHT)
    assert not [_name(path) for path in light if HEAVY & _libraries(path, top_level_only=True)]


def _libraries(path: Path, *, top_level_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name in _imports(path, top_level_only=top_level_only)}


def test_the_library_prints_nothing() -> None:
    for path in SOURCES:
        if path.is_relative_to(ROOT / "pea"):
            calls = [node for node in _nodes(path) if isinstance(node, ast.Call)]
            assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_each_file_name_that_rooms_share_is_written_once() -> None:
    shared = {name for constant, name in vars(file_names).items() if constant.isupper()}
    assert len(shared) >= 10
    for path in SOURCES:
        if _name(path) != "pea/file_names.py":
            texts = {node.value for node in _nodes(path) if isinstance(node, ast.Constant)}
            assert not texts & shared, f"{_name(path)}: a constant of pea.file_names says that"


def test_hooks_are_registered_in_one_place() -> None:
    users = {_name(path) for path in SOURCES if "register_forward" in path.read_text("utf-8")}
    assert users <= {"pea/models/unet.py"}


def test_models_are_loaded_in_one_place_and_without_remote_code() -> None:
    """`from_pretrained` of a library class: in two files alone, where every call refuses remote code."""
    own = {
        node.name
        for path in SOURCES
        for node in _nodes(path)
        if isinstance(node, ast.ClassDef) and any(_defines(each, "from_pretrained") for each in node.body)
    }
    for path in SOURCES:
        for call in _calls(path, "from_pretrained"):
            if _name(path) in LOADING:
                words = {word.arg: word.value for word in call.keywords}
                assert isinstance(words.get("trust_remote_code"), ast.Constant), ast.unparse(call)
                assert words["trust_remote_code"].value is False, ast.unparse(call)  # type: ignore[attr-defined]
            else:
                assert ast.unparse(call.func).rpartition(".")[0] in {*own, "super()"}, (
                    f"{_name(path)}: {ast.unparse(call)}"
                )


def test_configurations_make_no_class_that_they_name_themselves() -> None:
    for path in SOURCES:
        for call in _calls(path, "from_config"):
            kind, known = (
                ast.unparse(call.func).rpartition(".")[0],
                {"UNet2DConditionModel", "AutoencoderKL", "DDIMScheduler", "DDPMScheduler"},
            )
            known |= (
                {"SCHEDULERS[name]"} if _name(path) == "pea/evaluation/schedulers.py" else set()
            )  # a table of its own
            known |= {"kind"} if _name(path) in LOADING else set()  # given by its callers
            assert kind in known, f"{_name(path)}: {kind}"


def test_nothing_is_unpickled() -> None:
    for path in SOURCES:
        for call in [*_calls(path, "load"), *_calls(path, "loads")]:
            owner = ast.unparse(call.func).rpartition(".")[0]
            assert owner not in {"pickle", "joblib", "dill", "cloudpickle"}, _name(path)
            if owner == "torch":
                assert "weights_only=True" in ast.unparse(call), _name(path)
            if owner in {"np", "numpy"}:
                assert "allow_pickle=True" not in ast.unparse(call), _name(path)


def _defines(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _calls(path: Path, method: str) -> list[ast.Call]:
    calls = [node for node in _nodes(path) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == method]
