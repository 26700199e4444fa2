"""Every file below configs/: each has a purpose, and each fits what it is for."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from pea.config import load_config
from pea.models.unet import unet_config
from pea.models.unet_shapes import query_shapes
from stages.cli import main, parse
from stages.sweep_plan import Plan, plan
from stages.sweep_study import read_study

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*") if path.is_file())
STUDIES = [path for path in FILES if path.parent.name == "studies"]
DEMO = Path("configs/demo.yaml")


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def _planned(path: Path) -> Plan:
    return plan(read_study(path))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_resolves(path: Path) -> None:
    """By itself, a study; laid over the demo, a method or a part of the small world's setups."""
    if path in STUDIES:
        assert len(_planned(path).runs) > 1
    elif path.parent.name == "methods" or path.name.startswith("demo_"):
        assert load_config([DEMO, path]).run_dir.parts[0] == "runs"
    else:
        assert path.parent == Path("configs") and path.suffix == ".yaml"
        assert load_config(path).run_dir.parts[0] == "runs"


def test_there_are_few_folders() -> None:
    assert {path.parent.name for path in FILES} == {"configs", "methods", "studies"}
    assert len(STUDIES) >= 8


def _commands(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line.removeprefix("#     ")) for line in lines if line.startswith("#     ")]


@pytest.mark.parametrize("path", [path for path in FILES if _commands(ROOT / path)], ids=str)
def test_the_commands_in_its_first_lines_can_be_run(path: Path, tmp_path: Path) -> None:
    for program, *words in _commands(path):
        moved = [f"run_dir={tmp_path}"] if words[0] == "run" else []  # whose dry run remembers digests
        assert program == "pea" and main([*words, "--dry-run", *moved]) == 0


@pytest.mark.parametrize("path", STUDIES, ids=str)
def test_a_study_says_how_its_table_was_made_and_where_it_is(path: Path) -> None:
    assert any(words[:3] == ["pea", "sweep", str(path)] for words in _commands(path))
    head = path.read_text(encoding="utf-8").partition("\nconfig:")[0]
    [(page, heading)] = re.findall(r'^# Results: (docs/[\w/]+\.md)(?:, "([^"]+)")?', head, re.MULTILINE)
    text = Path(page).read_text(encoding="utf-8")
    assert f"\npea sweep {path}" in text
    assert not heading or re.search(rf"^#+ {re.escape(heading)}$", text, re.MULTILINE)


@pytest.mark.parametrize("path", STUDIES, ids=str)
def test_only_studies_of_what_a_cache_holds_fill_caches(path: Path) -> None:
    own = {run.method for run in _planned(path).runs if run.own_cache}
    kept = {run.method for run in _planned(path).runs} - own
    if path.stem.startswith("sketches"):
        assert not kept
    elif path.stem in ("phases", "from_scratch", "unet_steps", "languages"):
        assert not own
    else:
        assert {"options": {"drop_hidden_states", "noise_offset"}}.get(path.stem, {"queries_4", "layers_3"}) <= own
        assert kept


@pytest.mark.parametrize("path", STUDIES, ids=str)
def test_phases_and_layers_of_every_published_run_are_those_of_the_teacher(path: Path) -> None:
    for _, *words in (words for words in _commands(path) if words[1] == "sweep"):
        given = parse(words)
        only = given.only.split(",") if given.only else ()
        for run in plan(read_study(given.methods), given.config or (), given.overrides, seeds=[0], only=only).runs:
            kinds = [phase.kind for phase in run.config.train.all_phases]
            assert kinds == sorted(kinds, key=["text", "attention", "unet"].index)
            assert run.config.cache.attention is not None or "attention" not in kinds
            assert set(run.config.train.attention_layer_weights) <= _layers(run.config.teacher.checkpoint)


@cache
def _layers(checkpoint: Path) -> set[str]:
    return set(query_shapes(unet_config(checkpoint), (8, 8)))


def test_the_demos_recipe_is_the_one_of_the_studies() -> None:
    [run, *_] = (run for run in _planned(Path("configs/studies/phases.yaml")).runs if run.method == "attention_ukd")
    assert run.config.train.phases == load_config(DEMO).train.phases
