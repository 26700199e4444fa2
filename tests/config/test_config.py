"""The configuration: strict, all problems at once, the nearest name for a wrong one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pea import config as config_module
from pea.config import (
    Config,
    CountSketch,
    ExactSketch,
    load_config,
    resolved_yaml,
    valid_names,
)
from pea.errors import ConfigError

MINIMAL = """
run_dir: runs/test
teacher: {checkpoint: models/teacher}
corpora:
  parallel: {tars: ["data/*.tar"]}
student: {encoder: models/zh}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def test_defaults_and_overrides(minimal: Path) -> None:
    config = load_config(
        minimal, ["train.batch_size=16", "train.learning_rate=1e-3", "cache.buckets=[[64, 64], [48, 80]]"]
    )
    assert config.train.batch_size == 16
    assert config.train.learning_rate == 1e-3
    assert config.cache.buckets == ((64, 64), (48, 80))
    assert config.cache_dir("culture") == Path("runs/test/cache/culture")


def test_a_list_is_not_called_too_short_for_its_wrong_item(minimal: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(minimal, ["evaluate.rows=[adaptor]"])
    [problem] = caught.value.problems
    assert problem.startswith("evaluate.rows.0: input should be 'teacher'")


def test_unknown_keys_name_the_nearest_and_all_problems_come_at_once(minimal: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            minimal,
            [
                "train.bach_size=16",
                "train.steps=many",
                "batch_size=3",
                "cache.sketch={kind: count, ration: 3}",
            ],
        )
    problems = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "unknown key train.bach_size (did you mean train.batch_size?)" in problems
    assert "train.steps: input should be a valid integer (got 'many')" in problems
    assert "unknown key batch_size (did you mean" in problems
    assert "unknown key cache.sketch.ration (did you mean cache.sketch.ratio?)" in problems
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "train.steps=true",
        "train.steps=1.5",
        "train.steps='3'",
        "run_dir=3",
        "train.steps=0",
        "train.learning_rate=.nan",
        "train.steps=2024-01-01",
        "train.steps.more=1",
        "train",
        "=3",
        "a..b=1",
        "train.steps=[",
        "cache.sketch={kind: other}",
        "teacher=null",
    ],
)
def test_ill_typed_values_are_refused(minimal: Path, override: str) -> None:
    with pytest.raises(ConfigError):
        load_config(minimal, [override])


def test_no_is_a_language_and_a_precision(minimal: Path) -> None:
    config = load_config(minimal, ["corpora.parallel.captions={no: captions.no}", "train.precision=no"])
    assert config.corpora.parallel.captions == {"no": "captions.no"}
    assert config.train.precision == "no"


@pytest.mark.parametrize(
    "text", ["", "- a", "a: [", "a: 1\na: 2", "? [1]\n: 2", "a: !!python/object:os.system x", "\t"]
)
def test_a_file_that_is_not_a_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.yaml")


def test_resolved_yaml_round_trips(minimal: Path, tmp_path: Path) -> None:
    config = load_config(
        minimal, ["cache.block_sketches={down_blocks.0: {kind: exact}}", "cache.attention={num_queries: 4}"]
    )
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_sketch_for_block(minimal: Path) -> None:
    cache = load_config(minimal, ["cache.block_sketches={down_blocks.0: {kind: exact, dtype: float32}}"]).cache
    assert cache.sketch_for("down_blocks.0") == ExactSketch(kind="exact", dtype="float32")
    assert cache.sketch_for("mid_block") == CountSketch(kind="count")


def test_every_field_is_documented() -> None:
    sections = [
        kind
        for kind in vars(config_module).values()
        if isinstance(kind, type) and issubclass(kind, config_module.Section)
    ]
    undocumented = [f"{s.__name__}.{n}" for s in sections for n, f in s.model_fields.items() if not f.description]
    assert undocumented == []
    assert {"train.batch_size", "cache.sketch.fraction", "cache.run.num_actors"} <= set(valid_names())


def test_frozen(minimal: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(minimal).run_dir = Path("other")  # type: ignore[misc]


def test_import_is_light() -> None:
    heavy = {"torch", "ray", "diffusers", "numpy", "PIL"}
    code = f"import pea.config, sys; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert out.stdout.strip() == "[]"
    assert isinstance(Config, type)


def test_a_later_file_replaces_settings_of_an_earlier_one(minimal: Path, tmp_path: Path) -> None:
    above = tmp_path / "above.yaml"
    above.write_text("cache: {sketch: {kind: exact}, seed: 5}\ntrain: {steps: 3}\n")
    below = load_config(minimal, ["cache.sketch={kind: count, ratio: 8}", "train.batch_size=2"])
    (tmp_path / "below.yaml").write_text(resolved_yaml(below))
    config = load_config([tmp_path / "below.yaml", above])
    assert (config.train.steps, config.train.batch_size, config.cache.seed) == (3, 2, 5)
    assert config.cache.sketch.kind == "exact", "a sketch is replaced as a whole"
    above.write_text("train: {stepz: 3}\n")
    with pytest.raises(ConfigError, match=r"below\.yaml \+ .*above\.yaml: .*train\.steps"):
        load_config([tmp_path / "below.yaml", above])


def test_settings_lie_over_the_files_and_below_the_overrides(minimal: Path) -> None:
    below = {"train": {"steps": 1, "batch_size": 2}, "evaluate": {"prompts": {"general": "a", "culture": "b"}}}
    above = {"train": {"steps": 3}, "evaluate.prompts": {"general": "c"}, "cache.seed": 4}
    config = load_config(minimal, ["train.batch_size=5"], [below, above])
    assert (config.train.steps, config.train.batch_size, config.cache.seed) == (3, 5, 4)
    assert config.evaluate.prompts == {"general": Path("c")}, "a dotted setting replaces all"
    assert below["evaluate"]["prompts"] == {"general": "a", "culture": "b"}, "nothing given is changed"
    assert load_config(minimal, [], [below]).evaluate.prompts.keys() == {"general", "culture"}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"train": {"steps": 1}, "train.steps": 2}, "setting train.steps occurs twice"),
        ({"train.phases": [], "train": {"phases": []}}, "setting train.phases occurs twice"),
        ({"cache.sketch": {"kind": "exact"}, "cache.sketch.kind": "count"}, "setting cache.sketch.kind occurs twice"),
        ({"train..steps": 1}, "setting 'train..steps' is not of the form dotted.key"),
        ({"run_dir.x": 1}, "setting run_dir.x: run_dir holds a value, not keys"),
        ({"train.stepz": 1}, "unknown key train.stepz (did you mean train.steps?)"),
    ],
)
def test_settings_that_cannot_be_laid_over(minimal: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(minimal, [], [settings])
    assert problem in caught.value.problems


DEMO = Path(__file__).parents[2] / "configs/demo.yaml"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["corpora.parallel.tars=[]"], r"corpora\.parallel: .*needs tars, or texts in place of them"),
        (["corpora.parallel.texts=a.csv"], r"corpora\.parallel: .*needs tars, or texts"),
        (["corpora.parallel.id_column=id"], r"corpora\.parallel: .*id_column and drawing need texts"),
        (["corpora.parallel.drawing.steps=3"], r"id_column and drawing need texts"),
        (["corpora.parallel.drawing.guidance=0.5"], r"drawing\.guidance"),
        (["corpora.culture={texts: a.csv}"], r"culture: texts alone have nothing"),
    ],
)
def test_tars_or_texts(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(DEMO, settings)
    texts = load_config(DEMO, ["corpora.parallel={texts: a.csv, drawing: {steps: 3}}", "corpora.culture=null"])
    assert texts.corpora.parallel.drawing.steps == 3 and texts.corpora.parallel.text_source is not None


@pytest.mark.parametrize("size", ["hidden_size: 1000000000", "num_layers: 1000000000"])
def test_an_adapter_without_end_is_refused(size: str, tmp_path: Path) -> None:
    text = (
        "{teacher: {checkpoint: x}, corpora: {parallel: {tars: [a.tar]}}, run_dir: r, "
        "student: {encoder: x, adapter: {%s}}}"
    )
    (tmp_path / "c.yaml").write_text(text % size)
    with pytest.raises(ConfigError, match=r"student\.adapter\.(hidden_size|num_layers): input should be less than or"):
        load_config(tmp_path / "c.yaml")
