"""Placeholders in the configuration's paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pea.config
from pea.config import Config, Section, TeacherConfig, load_config, resolved_yaml
from pea.corpus.tars import expand_tars
from pea.errors import ConfigError
from tests.config.test_config import MINIMAL


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


PLACED = [
    "corpora.parallel.tars=['{run_dir}/a/{00000..00099}.tar', 'b/{x,y}.tar']",
    "teacher.checkpoint='{run_dir}/t'",
    "student.encoder='{run_dir}/e'",
    "evaluate={prompts: {general: '{run_dir}/p'}, judge: '{run_dir}/j', clip: '{run_dir}/c'}",
    "cache_root='{run_dir}/caches'",
]


def test_paths_follow_the_run_dir_and_other_braces_stay(minimal: Path, tmp_path: Path) -> None:
    config = load_config(minimal, [*PLACED, "run_dir=/there/", "train.sample_prompts=['a {cat}']"])
    assert config.corpora.parallel.tars == ("/there/a/{00000..00099}.tar", "b/{x,y}.tar")
    assert [config.teacher.checkpoint, config.student.encoder] == [Path("/there/t"), Path("/there/e")]
    assert config.evaluate.prompts == {"general": Path("/there/p")}
    assert [config.evaluate.judge, config.evaluate.clip] == [Path("/there/j"), Path("/there/c")]
    assert config.cache_dir("culture") == Path("/there/caches/culture")
    assert config.train.sample_prompts == ("a {cat}",), "no path"
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == config
    moved = load_config(tmp_path / "resolved.yaml", ["run_dir=elsewhere"])
    assert moved.teacher == config.teacher, "what is resolved stays where it is"


def _sections() -> list[type[Section]]:
    kinds = [kind for kind in vars(pea.config).values() if isinstance(kind, type) and issubclass(kind, Section)]
    assert Config in kinds and TeacherConfig in kinds
    return kinds


def test_every_path_of_the_configuration_takes_placeholders() -> None:
    unfilled = [
        name
        for section in _sections()
        for name, field in section.model_fields.items()
        if "Path" in str(field.annotation) and "_fill_path" not in f"{field.annotation}{field.metadata}"
    ]
    assert unfilled == ["run_dir"]


def test_tars_are_found_in_a_run_dir_that_looks_like_a_pattern(minimal: Path, tmp_path: Path) -> None:
    (tmp_path / "run[1]*").mkdir()
    (tmp_path / "run[1]*" / "a.tar").touch()
    settings = [f"run_dir={json.dumps(str(tmp_path / 'run[1]*'))}", "corpora.parallel.tars=['{run_dir}/*.tar']"]
    assert [tar.name for tar in expand_tars(load_config(minimal, settings).corpora.parallel.tars)] == ["a"]


def test_unknown_placeholders_are_refused_all_at_once(minimal: Path) -> None:
    wrong = [
        "corpora.parallel.tars=['{rundir}/*.tar', 'other.tar']",
        "evaluate.judge='{run_dir}/{judge}'",
        "run_dir='{run_dir}'",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(minimal, wrong)
    said = " | ".join(caught.value.problems)
    assert len(caught.value.problems) == 3
    assert "unknown placeholder {rundir}: only {run_dir} can stand here" in said
    assert "evaluate.judge: unknown placeholder {judge}" in said
    assert "run_dir: other paths may begin with it, so it cannot hold braces" in said
