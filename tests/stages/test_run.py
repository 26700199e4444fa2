"""The pipeline runner: order, reasons to run and to skip, failures."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pea.config import load_config, resolved_yaml
from pea.errors import ConfigError
from stages.cli import main
from stages.command.console import Console
from stages.pipeline.definition import Pipeline, Stage, load_pipeline
from stages.run import Runner, StageFailedError, run_arguments
from stages.run import add_arguments as add_run_arguments

ROOT = Path(__file__).parents[2]
_COPY = "import sys; open(sys.argv[2], 'w').write(open(sys.argv[1]).read().upper())"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline of two stages: a.txt -> b.txt -> run/c.txt."""
    monkeypatch.chdir(tmp_path)
    setup = {
        "run_dir": "run",
        "teacher": {"checkpoint": "teacher"},
        "corpora": {"parallel": {"tars": ["*.tar"]}},
        "student": {"encoder": "zh"},
    }
    Path("setup.yaml").write_text(yaml.safe_dump(setup))
    stages: list[dict[str, Any]] = [
        {
            "name": "first",
            "run": ["python", "-c", _COPY, "a.txt", "b.txt"],
            "uses": ["cache"],
            "reads": ["a.txt"],
            "writes": ["b.txt"],
        },
        {
            "name": "second",
            "run": ["python", "-c", _COPY, "b.txt", "{run_dir}/c.txt"],
            "reads": ["b.txt"],
            "writes": ["{run_dir}/c.txt"],
        },
    ]
    Path("pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": stages}))
    Path("a.txt").write_text("one")
    return tmp_path


def _run(*overrides: str, force: bool = False) -> list[str]:
    output = io.StringIO()
    pipeline = load_pipeline(Path("pipeline.yaml"))
    config = load_config(pipeline.config, overrides)
    Runner(pipeline, config, list(overrides), Console(file=output, width=200), force).run()
    return output.getvalue().splitlines()


def test_stages_run_in_order_and_then_are_skipped(folder: Path) -> None:
    assert _run() == ["1/2 first: not run yet", "2/2 second: not run yet"]
    assert (folder / "run" / "c.txt").read_text() == "ONE"
    assert _run() == ["1/2 first: unchanged, skipped", "2/2 second: unchanged, skipped"]


def test_changed_content_runs_again_what_depends_on_it(folder: Path) -> None:
    _run()
    (folder / "a.txt").write_text("two")
    assert _run() == ["1/2 first: a.txt changed", "2/2 second: b.txt changed"]


def test_touched_but_equal_content_is_skipped(folder: Path) -> None:
    _run()
    (folder / "a.txt").write_text("one")
    assert _run() == ["1/2 first: unchanged, skipped", "2/2 second: unchanged, skipped"]


def test_only_the_sections_in_use_count_and_run_options_never(folder: Path) -> None:
    _run()
    assert _run("train.steps=3") == ["1/2 first: unchanged, skipped", "2/2 second: unchanged, skipped"]
    assert _run("cache.run.num_actors=3")[0] == "1/2 first: unchanged, skipped"
    assert _run("cache.seed=3")[0] == "1/2 first: cache settings changed"


def test_missing_output_runs_again(folder: Path) -> None:
    _run()
    (folder / "b.txt").unlink()
    assert _run() == ["1/2 first: b.txt is missing", "2/2 second: unchanged, skipped"]


def test_changed_command_runs_again(folder: Path) -> None:
    _run()
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace("upper", "lower"))
    assert _run()[0] == "1/2 first: its command changed"


def test_damaged_record_runs_again(folder: Path) -> None:
    _run()
    (folder / "run" / "state" / "first.json").write_text("{")
    assert _run()[0] == "1/2 first: not run yet"


def test_force_runs_everything(folder: Path) -> None:
    _run()
    assert _run(force=True) == ["1/2 first: forced", "2/2 second: forced"]


def test_a_glob_that_matches_more_files_is_a_change(folder: Path) -> None:
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace("- a.txt\n  run", "- '[aA]*.txt'\n  run"))
    _run()
    (folder / "a2.txt").write_text("more")
    assert _run()[0] == "1/2 first: [aA]*.txt changed"


def test_a_failing_stage_stops_the_run_with_its_code_and_is_run_again(folder: Path) -> None:
    text = (folder / "pipeline.yaml").read_text()
    broken = text.replace(json.dumps(_COPY), "X")
    pipeline = yaml.safe_load(broken)
    pipeline["stages"][0]["run"] = ["python", "-c", "import sys; sys.exit(5)"]
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    with pytest.raises(StageFailedError, match="stage 'first' failed with exit code 5") as caught:
        _run()
    assert caught.value.exit_code == 5
    assert not (folder / "run" / "c.txt").exists()
    (folder / "pipeline.yaml").write_text(text)
    assert _run()[0] == "1/2 first: not run yet"


def test_a_killed_stage_has_the_shells_code(folder: Path) -> None:
    pipeline = yaml.safe_load((folder / "pipeline.yaml").read_text())
    pipeline["stages"][0]["run"] = ["python", "-c", "import os; os.kill(os.getpid(), 9)"]
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    with pytest.raises(StageFailedError) as caught:
        _run()
    assert caught.value.exit_code == 137


def test_dry_run_says_what_would_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_arguments(_arguments("pipeline.yaml", "--dry-run")) == 0
    assert capsys.readouterr().out == "first: not run yet\nsecond: not run yet\n"
    assert not (folder / "b.txt").exists()


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    return parser.parse_args(words)


def test_of_several_setups_none_is_lost(folder: Path) -> None:
    """As in every other command, later files are laid over earlier ones, here and in what the stages are told."""
    told = "import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"
    stage = {
        "name": "only",
        "run": ["python", "-c", told, "{run_dir}.json", "--config", "{config}", "--with={config}", "end"],
        "reads": ["{config}"],
    }
    Path("pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": [stage]}))
    Path("over.yaml").write_text("run_dir: other")
    files = ["--config", "setup.yaml", "--config", "over.yaml"]
    assert run_arguments(_arguments("pipeline.yaml", *files)) == 0
    expected = [*files, "--with=setup.yaml", "--with=over.yaml", "end"]
    assert json.loads(Path("other.json").read_text()) == expected
    assert set(json.loads(Path("other/state/only.json").read_text())["digest"]) == {
        "its command", "setup.yaml", "over.yaml",
    }  # fmt: skip
    Path("pipeline.yaml").write_text(yaml.safe_dump({"config": ["setup.yaml", "over.yaml"], "stages": [stage]}))
    assert _run() == ["1/1 only: unchanged, skipped"]


def test_a_pea_stage_is_told_every_setup(folder: Path) -> None:
    files = (Path("setup.yaml"), Path("setup.yaml"))
    pipeline = Pipeline(config=files, stages=[Stage(name="a", run=["pea", "eval", "--config", "{config}"])])
    runner = Runner(pipeline, load_config(files), ["train.steps=3"], Console(quiet=True))
    words = ["eval", "--config", "setup.yaml", "--config", "setup.yaml", "train.steps=3"]
    assert runner.command(pipeline.stages[0])[3:] == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: [", "not valid YAML"),
        ("stages: []", "config: Field required"),
        ("config: a\nstages: [{name: x, run: [y], raeds: []}]", "stages.0.raeds: Extra inputs"),
    ],
)
def test_wrong_pipeline_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pipeline.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_pipeline(tmp_path / "pipeline.yaml")


def test_unknown_section_in_uses(folder: Path) -> None:
    text = (folder / "pipeline.yaml").read_text().replace("- cache", "- cash")
    (folder / "pipeline.yaml").write_text(text)
    with pytest.raises(ConfigError, match="no such section; got cash"):
        _run()


def test_braces_around_anything_but_a_placeholder_stay(folder: Path) -> None:
    stage = {"name": "only", "run": ["python", "-c", "print({'a': 1}, '{0..3}')"], "reads": ["{00..99}.tar"]}
    Path("pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": [stage]}))
    assert _run() == ["1/1 only: not run yet"]
    for part, text in (("run", "echo {run_di}"), ("reads", "{rundir}/a"), ("writes", "{run_dir}/{name}")):
        wrong = {**stage, part: [text]}
        Path("pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": [wrong]}))
        with pytest.raises(ConfigError, match=r"not a pipeline; got stage only: unknown placeholder \{\w+\}: only"):
            _run()


def test_what_is_read_in_a_folder_with_a_strange_name_counts(folder: Path) -> None:
    stage = {"name": "only", "run": ["python", "-c", "0"], "reads": ["{run_dir}/*.txt"]}
    Path("pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": [stage]}))
    Path("run[1]").mkdir()
    for text in ("one", "two"):
        Path("run[1]/a.txt").write_text(text)
        said = _run("run_dir='run[1]'")
    assert said == ["1/1 only: run[1]/*.txt changed"]


def test_another_run_dir_moves_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pipeline, elsewhere = load_pipeline(Path("pipeline.yaml")), str(tmp_path / "elsewhere")
    overrides = [f"run_dir={elsewhere}"]
    assert main(["run", "pipeline.yaml", "--dry-run", *overrides]) == 0
    config = load_config(pipeline.config, overrides)
    runner = Runner(pipeline, config, overrides, Console(quiet=True))
    commands = [" ".join(runner.command(stage)) for stage in pipeline.stages]
    assert all(elsewhere in command for command in commands)
    files = [text for stage in pipeline.stages for text in [*stage.reads, *stage.writes]]
    assert "runs/demo" not in " ".join([*commands, *files, resolved_yaml(config)])
    written = commands[0].partition("--out ")[2]  # the corpora, where the configuration looks for them
    assert config.corpora.culture is not None
    assert config.corpora.parallel.tars == (f"{written}/parallel/*.tar",)
    assert config.corpora.culture.tars == (f"{written}/culture-zh/*.tar",)
    assert set(config.evaluate.prompts.values()) == {
        Path(written, "prompts", name) for name in ("general.jsonl", "culture-zh.jsonl")
    }


def test_the_shipped_pipeline_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pipeline: Pipeline = load_pipeline(Path("pipeline.yaml"))
    config = load_config(pipeline.config)
    assert [stage.name for stage in pipeline.stages] == ["corpora", "cache", "train", "evaluate", "report"]
    assert all(set(stage.uses) <= set(type(config).model_fields) for stage in pipeline.stages)
