"""`pea doctor`: one line a finding, exit codes, and a report without secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from stages.cli import main

SECRET = "hf_verysecretvalue"


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose models and tars are there, as far as a look goes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    for name in ("teacher", SECRET):
        Path(name).mkdir()
    Path("a.tar").write_bytes(b"")
    raw = {
        "run_dir": "run",
        "teacher": {"checkpoint": "teacher"},
        "corpora": {"parallel": {"tars": ["*.tar"]}},
        "student": {"encoder": SECRET},
        "train": {"device": "cpu"},
        "cache": {"run": {"device": "cpu"}},
    }
    Path("setup.yaml").write_text(yaml.safe_dump(raw))
    return Path("setup.yaml")


def test_a_good_setup_is_usable(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["doctor", "--config", str(setup)]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[-1].startswith("usable: no problems")
    topics = {line[8:].partition(":")[0] for line in lines[:-1]}
    expected = {"versions", "cpus", "cpu", "run_dir", "temporary files", "corpora.parallel", "hub", "ray"}
    assert expected <= topics
    assert sorted(Path().rglob("*")) == before
    assert SECRET not in said


def test_what_is_missing_makes_it_unusable(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.tar").unlink()
    assert main(["doctor", "--config", str(setup)]) == 2
    said = capsys.readouterr().out
    assert "PROBLEM corpora.parallel: *.tar: no such tar" in said and "NOT usable: 1 problem," in said


def test_the_report_is_json_without_secrets(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--config", str(setup), "--json"]) == 0
    said = capsys.readouterr().out
    report = json.loads(said)
    assert report["usable"] and "HF_TOKEN" in report["environment"]
    assert SECRET not in said
    assert {"topic", "level", "what", "remedy"} == set(report["findings"][0])


def test_without_a_setup_the_machine_alone_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["doctor"]) == 0
    assert "ok      this folder: " in capsys.readouterr().out


def test_a_file_without_its_option_is_not_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "setup.yaml"]) == 2
    said = capsys.readouterr()
    assert "expected --config FILE before it; got setup.yaml" in said.err and "usable" not in said.out


def test_a_wrong_setup_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("run_dir: x")
    assert main(["doctor", "--config", str(tmp_path / "c.yaml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
