"""Every mistake in a pipeline's file is one line, and nothing runs before it is corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pea.errors import ConfigError
from stages.cli import main

SETUP = {
    "run_dir": "run",
    "teacher": {"checkpoint": "teacher"},
    "corpora": {"parallel": {"tars": ["*.tar"]}},
    "student": {"encoder": "zh"},
}
FIRST = {"name": "first", "run": ["python", "-c", "open('ran', 'w')"], "writes": ["{run_dir}/a"]}


def stage(**parts: Any) -> dict[str, Any]:
    return {"name": "second", "run": ["python", "-c", "0"], **parts}


WRONG = {
    "program": (stage(run=["paint", "it"]), "stage second: no such program: paint"),
    "path": (stage(run=["./nowhere.sh"]), "stage second: no such program: ./nowhere.sh"),
    "command": (stage(run=["pea", "trian"]), "no such command: pea trian (did you mean pea train?)"),
    "no command": (stage(run=["pea"]), "no such command: pea"),
    "module": (stage(run=["python", "-m", "data_tools.wold"]), "no such module: python -m data_tools.wold"),
    "no module": (stage(run=["python", "-m"]), "no such module: python -m"),
    "empty run": (stage(run=[]), "stages.1.run: List should have at least 1 item"),
    "empty word": (stage(run=[""]), "stages.1.run.0: String should have at least 1 character"),
    "no run": ({"name": "second"}, "stages.1.run: Field required"),
    "placeholder": (stage(reads=["{rundir}/a"]), "stage second: unknown placeholder {rundir}: only {config}"),
    "duplicate": (stage(name="First"), "two stages of one name: first"),
    "name": (stage(name="../first"), "stages.1.name: String should match pattern"),
    "long name": (stage(name="a" * 300), "stages.1.name: String should have at most 100"),
    "section": (stage(uses=["trian"]), "uses: no such section; got trian (did you mean train?)"),
    "own output": (stage(reads=["b/c"], writes=["b"]), "reads {here}/b, which it writes itself"),
    "two writers": (stage(writes=["run/a/b"]), "stages first and second both write {here}/run/a/b"),
    "number": (stage(run=["sleep", 3]), "stages.1.run.1: Input should be a valid string"),
    "no mapping": ("second", "stages.1: Input should be a valid dictionary"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("setup.yaml").write_text(yaml.safe_dump(SETUP))
    return tmp_path


def run(*stages: Any) -> int:
    Path("pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": list(stages)}))
    return main(["run", "pipeline.yaml"])


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_stage_is_one_line_before_anything_runs(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, message = WRONG[name]
    assert run(FIRST, wrong) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.replace("{here}", str(folder)) in line
    assert not Path("ran").exists() and not Path("run").exists()


@pytest.mark.parametrize(
    "text", ["{run_dir}/a", "{run_dir}", "{run_dir}/a/b", "{run_dir}/*", "{run_dir}/a/*.txt", "**"]
)
def test_what_a_later_stage_writes_cannot_be_read(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stage(reads=[text]), FIRST) == 2
    assert f"reads {folder}/run/a, which the later stage first writes" in capsys.readouterr().err
    assert run(FIRST, stage(reads=[text])) == 0


@pytest.mark.parametrize("text", ["{run_dir}/ab", "{run_dir}/*.txt", "{run_dir}/b/**", "{run_dir}/[[]a]"])
def test_neighbours_are_no_dependence(folder: Path, text: str) -> None:
    assert run(stage(reads=[text]), FIRST) == 0


def test_all_problems_come_at_once(folder: Path) -> None:
    from pea.config import load_config
    from stages.pipeline.checks import check_stages
    from stages.pipeline.definition import Stage, Words

    config = load_config(Path("setup.yaml"))
    stages = [Stage(name="a", run=["paint"], uses=["x"]), Stage(name="b", run=["pea", "cash"], reads=["{x}"])]
    with pytest.raises(ConfigError) as caught:
        check_stages(stages, config, Words([Path("setup.yaml")], config))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("text", ["config: setup.yaml\nstages: []", "config: []\nstages: []", "- a", ""])
def test_an_empty_pipeline(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pipeline.yaml").write_text(text)
    assert main(["run", "pipeline.yaml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
