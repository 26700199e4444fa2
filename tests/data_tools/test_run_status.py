"""`pea status`: what lies in the storage, who is writing it, and nothing that is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_tools.run_status import cache_status, parts_per_second, planned_steps, run_status
from pea.cache import Cache
from pea.cache.publication import names_in
from pea.config import Config, PhaseConfig, resolved_yaml
from pea.file_names import METRICS
from pea.storage import Location
from pea.storage.leases import take
from pea.training.recipe import num_steps
from stages.cli import main
from stages.command.common import save_resolved
from stages.status import lines_of
from tests.tiny_setup import make_setup

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_setup(tmp_path_factory.mktemp("status"))


def test_a_run_that_has_not_begun(config: Config, tmp_path: Path) -> None:
    status = run_status(config.model_copy(update={"run_dir": tmp_path / "new"}))
    assert status["caches"] == {"parallel": None, "culture": None}
    assert status["training"] is None and status["evaluation"] is None
    assert [line.split(maxsplit=1)[1] for line in lines_of(status)[1:]] == ["not begun"] * 3 + ["not done"]
    assert not (tmp_path / "new").exists(), "a look makes nothing"


def test_finished_caches(config: Config) -> None:
    status = run_status(config)
    parallel = status["caches"]["parallel"]
    assert parallel["parts"] == {"finished": 2, "all": 2} and parallel["samples"] == 16 and parallel["records"] == 48
    assert parallel["writers"] == [] and parallel["records_per_s"] is None and parallel["seconds_left"] is None
    assert status["caches"]["culture"]["samples"] == 5


def test_a_cache_that_is_being_filled(config: Config, tmp_path: Path) -> None:
    """One shard finished, one with a living writer: both are told; without the writer nothing is promised."""
    directory = _half(config, tmp_path)
    tar = Cache.open(directory, partial=True).plan()[0].tar
    found = cache_status(directory)
    assert found is not None and found["parts"] == {"finished": 1, "all": 2} and found["writers"] == []
    status = {"run_dir": "x", "writers": [], "caches": {"parallel": found}, "training": None, "evaluation": None}
    [line] = [each for each in lines_of(status) if "nobody is writing it" in each]
    assert "a run that begins" in line, "a run whose workers still load their models has no writer either"
    with take(directory / "shards" / tar / "p000-mine.zarr", f"writing {tar}/p000"):
        [writer] = cache_status(directory)["writers"]  # type: ignore[index]
    assert writer.startswith(f"writing {tar}/p000 by ")


def test_who_works_on_a_run_in_a_bucket(config: Config, bucket: Location) -> None:
    """They have its state on a machine of their own, and one lease on all of it in the bucket."""
    run = config.model_copy(update={"run_dir": bucket / "run", "cache_root": config.run_dir / "cache"})
    (bucket / "run/training/train_log.jsonl").write_text('{"step": 2, "phase": 1, "loss": 0.5, "seconds": 4.0}\n')
    assert "            nobody is training; the same command goes on" in lines_of(run_status(run))
    with take(bucket / "run/run", "pea train"):
        lines = lines_of(run_status(run))
    assert [line.split(" by ")[0] for line in lines if "pea train" in line] == ["            pea train"]
    assert not any("nobody is training" in line for line in lines)
    with take(bucket / "run/run", "pea cache"):
        lines = lines_of(run_status(run))
    assert lines[1].startswith("            pea cache by ")
    assert "            nobody is training; the same command goes on" in lines


def _half(config: Config, folder: Path) -> Location:
    """A copy of the parallel cache without the second tar's shard."""
    source, copy = Location.parse(config.cache_dir("parallel")), Location.parse(folder / "half")
    for entry in source.entries(recursive=True):
        if entry.status is not None and "shards/parallel-1" not in entry.name:
            (copy / entry.name).write_bytes((source / entry.name).read_bytes())
    assert "parallel-1" not in names_in(copy / "shards")
    return copy


def test_the_rate_is_that_of_the_last_parts() -> None:
    assert parts_per_second([0.0]) is None and parts_per_second([5.0, 5.0]) is None
    assert parts_per_second([0.0, 10.0, 20.0]) == pytest.approx(0.1)
    slow_then_fast = [float(second) for second in range(0, 10_000, 1000)] + [10_000.0 + each for each in range(32)]
    assert parts_per_second(slow_then_fast) == pytest.approx(1.0), "not of a run that stood still for a night"


def _another_training_lives(run: Config) -> None:
    """Begun with settings of its own in the folder of a finished one, whose summary says nothing of it."""
    summary = run.training_dir / "train_summary.json"
    summary.write_text('{"steps": 2, "phases": [{"kind": "attention"}]}')
    phases = (PhaseConfig(kind="text", steps=3), PhaseConfig(kind="unet", steps=9))
    other = run.model_copy(update={"train": run.train.model_copy(update={"phases": phases})})
    save_resolved(other, run.run_dir)
    with take(Location.parse(run.adapter_dir) / "training", "pea train"):
        training = run_status(run)["training"]
        (run.run_dir / "config.yaml").write_text("of: another time")
        assert run_status(run)["training"]["steps"] == 4, "as the command says"
    assert (training["steps"], training["phase"]) == (12, "1 of 2 (text)")
    done = run_status(run)["training"]
    assert (done["steps"], done["phase"]) == (2, "1 of 1 (attention)"), "as it was, not as the command says"
    summary.write_text('{"steps": 1, "phases": [{"kind": "attention"}]}')
    assert run_status(run)["training"]["steps"] == 4, "more steps than it had: it is that of a former one"
    summary.unlink()


def test_steps_by_the_rule(config: Config, tmp_path: Path) -> None:
    """A configuration that names no steps: as many as the rule gives for the samples that are cached."""
    train = config.train.model_copy(update={"steps": None})
    run = config.model_copy(update={"run_dir": tmp_path, "cache_root": config.run_dir / "cache", "train": train})
    assert planned_steps(run) == num_steps(config.train.batch_size, 16)
    assert planned_steps(run.model_copy(update={"cache_root": None})) is None
    run.adapter_dir.mkdir(parents=True)
    (run.adapter_dir / "config.json").write_text("{}")
    assert "0 of 400 steps" in "\n".join(lines_of(run_status(run)))
    without = run_status(run.model_copy(update={"cache_root": None}))
    assert "training    no steps" in lines_of(without)


def test_training_and_scores(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = config.model_copy(update={"run_dir": tmp_path / "run", "cache_root": config.run_dir / "cache"})
    for folder in (run.adapter_dir, run.training_dir):
        folder.mkdir(parents=True)
    rows = [
        {"step": step, "phase": 1, "loss": 1 / step, "seconds": step * 2.0, "samples_per_s": 4.0} for step in (1, 2)
    ]
    (run.training_dir / "train_log.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "lo'
    )
    for content, said in (("{}", "not done"), ('{"drawings": {"adapter/g": {}}}', "images drawn, and not scored")):
        (run.run_dir / METRICS).write_text(content)
        assert lines_of(run_status(run))[-1] == f"evaluation  {said}"
    (run.run_dir / METRICS).write_text('{"adapter.general": 0.5, "teacher.general": 0.75}')
    with take(Location.parse(run.adapter_dir) / "training", "pea train"):
        status = run_status(run)
    training = status["training"]
    assert (training["step"], training["steps"], training["loss"]) == (2, 4, 0.5), "a half-written row does not count"
    assert training["seconds_left"] == pytest.approx(4.0) and "pea train by" in training["writers"][0]
    assert status["evaluation"] == {"adapter.general": 0.5}
    _another_training_lives(run)

    path = tmp_path / "setup.yaml"
    path.write_text(resolved_yaml(run), encoding="utf-8")
    assert main(["status", "--config", str(path)]) == 0
    said = capsys.readouterr().out
    assert "training    phase 1 of 1 (unet), 2 of 4 steps, loss 0.5, 4 rows/s" in said
    assert "nobody is training; the same command goes on" in said and "evaluation  adapter.general 0.500" in said
    assert main(["status", "--config", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["step"] == 2
