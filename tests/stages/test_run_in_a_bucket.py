"""A pipeline of which everything is in a bucket: inputs, caches, states, adapter, reports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pea.cache import Cache
from pea.cache.audit import audit
from pea.config import Config, load_config
from pea.models.adapter import PEA
from pea.storage import Location
from pea.storage.transfer import copy_file, upload_folder
from stages import train_adapter
from stages.cli import main
from stages.command.console import Console
from tests.cache_helpers import content
from tests.collect.test_collector import assert_same
from tests.tiny_setup import TRAIN, make_setup
from tests.train_runs import log_rows, same, weights

ROOT = Path(__file__).parents[2]
STEPS = 40
STAGES: list[dict[str, Any]] = [
    {
        "name": "cache",
        "run": ["pea", "cache", "--config", "{config}"],
        "uses": ["teacher", "corpora", "cache"],
        "writes": ["{cache_root}/parallel", "{cache_root}/culture"],
    },
    {
        "name": "train",
        "run": ["pea", "train", "--config", "{config}"],
        "uses": ["teacher", "student", "train"],
        "reads": ["{cache_root}/parallel", "{cache_root}/culture"],
        "writes": ["{run_dir}/adapter"],
    },
    {
        "name": "evaluate",
        "run": ["pea", "eval", "--config", "{config}"],
        "uses": ["evaluate"],
        "reads": ["{run_dir}/adapter"],
        "writes": ["{run_dir}/metrics.json", "{run_dir}/evaluate"],
    },
    {
        "name": "report",
        "run": ["pea", "report", "--config", "{config}"],
        "reads": ["{run_dir}/metrics.json"],
        "writes": ["{run_dir}/report.html"],
    },
]


def _settings(bucket: Location) -> dict[str, Any]:
    inputs = bucket / "inputs"
    return {
        "run_dir": f"{bucket}/runs/one",
        "teacher": {"checkpoint": f"{inputs}/teacher"},
        "corpora": {
            "parallel": {"tars": [f"{inputs}/parallel-*.tar"]},
            "culture": {"tars": [f"{inputs}/culture.tar"], "source_language": "zh"},
        },
        "cache": {
            "draws_per_sample": 3,
            "caption_drop_rate": 0.3,
            "buckets": [[16, 16], [16, 24]],
            "sketch": {"kind": "exact", "dtype": "float32"},
            "noise_pred_dtype": "float32",
        },
        "student": {"encoder": f"{inputs}/zh", "adapter": {"hidden_size": 16}},
        "train": TRAIN | {"steps": STEPS, "save_every_steps": 4},
        "evaluate": {
            "prompts": {"general": "{run_dir}/corpora/prompts/general.jsonl"},
            "rows": ["teacher", "adapter"],
            "num_inference_steps": 2,
        },
    }


def _make_inputs(folder: Path, bucket: Location) -> Config:
    """A tiny setup with its caches in a folder, and its inputs in the bucket."""
    local = make_setup(folder, "sd15")
    for name in ("teacher", "zh"):
        upload_folder(folder / name, bucket / "inputs" / name)
    for name in ("parallel-0.tar", "parallel-1.tar", "culture.tar"):
        copy_file(Location.parse(folder / name), bucket / "inputs" / name)
    return local


def _pea(*words: str, folder: Path) -> subprocess.Popen[str]:
    """One command, in a folder of its own, so that a local folder `s3:` would be seen."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.cli", *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _done(*words: str, folder: Path) -> str:
    process = _pea(*words, folder=folder)
    said, _ = process.communicate(timeout=540)
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_the_whole_pipeline(
    bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = _make_inputs(tmp_path / "made", bucket)
    prompts = [{"id": f"p{n}", "captions": {"en": "a cat", "zh": "一只猫"}, "attributes": {}} for n in range(2)]
    run = bucket / "runs/one"
    (run / "corpora/prompts/general.jsonl").write_text("\n".join(map(json.dumps, prompts)) + "\n")
    folder = tmp_path / "here"
    folder.mkdir()
    setup = folder / "setup.yaml"
    setup.write_text(yaml.safe_dump(_settings(bucket)), encoding="utf-8")
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"config": "setup.yaml", "stages": STAGES}), encoding="utf-8")
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "work"))

    _done("cache", "--config", "setup.yaml", folder=folder)
    assert content(Cache.open(run / "cache/parallel")).keys() == content(Cache.open(local.cache_dir("parallel"))).keys()
    _kill_training(run, folder)
    assert not (run / "adapter/config.json").exists()

    shutil.rmtree(tmp_path / "work")  # another machine goes on
    said = _done("run", "pipeline.yaml", folder=folder)
    assert "resumed at step" in said
    assert f"adapter in {run}/adapter: " in said and f"report: {run}/report.html" in said
    _names_no_copy(said, run, tmp_path)
    for name in (
        "adapter/config.json",
        "metrics.json",
        "evaluate/adapter/general/p1.png",
        "report.html",
        "config.yaml",
    ):
        assert (run / name).exists(), name
    states = {each.name.split("/")[0] for each in (run / "training/states").entries(recursive=True)}
    assert states == {f"step-{STEPS - 4:08d}", f"step-{STEPS:08d}"}

    shutil.rmtree(tmp_path / "work")  # and a third one finds nothing to do
    assert _done("run", "pipeline.yaml", folder=folder).count("unchanged, skipped") == len(STAGES)
    _equals_an_unbroken_run(setup, tmp_path, run)
    _other_commands(setup, run, tmp_path, capsys)
    assert sorted(path.name for path in folder.iterdir()) == ["pipeline.yaml", "setup.yaml"]


@pytest.mark.slow
def test_training_drawing_and_report_name_the_bucket_alone(
    bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same without Ray: caches that were filled here are carried into the bucket."""
    local, run = _make_inputs(tmp_path / "made", bucket), bucket / "runs/one"
    upload_folder(local.cache_dir("parallel").parent, run / "cache")
    prompt = {"id": "p", "captions": {"en": "a cat", "zh": "一只猫"}, "attributes": {}}
    (run / "corpora/prompts/general.jsonl").write_text(json.dumps(prompt) + "\n")
    (tmp_path / "setup.yaml").write_text(yaml.safe_dump(_settings(bucket)), encoding="utf-8")
    monkeypatch.setenv("PEA_WORK_DIR", str(tmp_path / "work"))
    for command in ("train", "eval", "report", "status"):
        assert main([command, "--config", str(tmp_path / "setup.yaml"), "train.steps=4"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert f"adapter in {run}/adapter: " in said and f"report: {run}/report.html" in said
    _names_no_copy(said, run, tmp_path)


@pytest.mark.slow
def test_two_drivers_at_once_fill_one_cache_and_both_end_well(
    bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two machines with run folders of their own: whoever is first at a part has it."""
    local, drivers = _make_inputs(tmp_path / "made", bucket), []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        settings = _settings(bucket) | {"run_dir": str(folder / "run"), "cache_root": f"{bucket}/runs/one/cache"}
        (folder / "setup.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        monkeypatch.setenv("PEA_WORK_DIR", str(folder / "work"))
        drivers.append(_pea("cache", "--config", "setup.yaml", "evaluate.prompts={}", folder=folder))
    said = "\n".join(driver.communicate(timeout=540)[0] for driver in drivers)
    assert [driver.returncode for driver in drivers] == [0, 0], said
    for corpus in ("parallel", "culture"):
        cache = Cache.open(bucket / "runs/one/cache" / corpus)
        assert_same(cache, Cache.open(local.cache_dir(corpus)))
        assert audit(cache.directory).problems == [], "no store, record or lease of the one that was second is left"


def _names_no_copy(said: str, run: Location, tmp_path: Path) -> None:
    """Neither what was said nor a text that was published knows of the copy on this machine."""
    texts = {"stdout": said}
    for entry in run.entries(recursive=True):
        if entry.name.endswith((".json", ".jsonl", ".md", ".html", ".yaml", ".txt")):
            texts[entry.name] = (run / entry.name).read_text()
    assert len(texts) > 10
    assert f"# a copy of {run.parent.parent}/inputs/teacher" in texts["report.html"]
    assert [name for name, text in texts.items() if str(tmp_path / "work") in text] == []


def _kill_training(run: Location, folder: Path) -> None:
    process = _pea("train", "--config", "setup.yaml", folder=folder)
    deadline = time.monotonic() + 300
    states = run / "training/states"
    while not any(each.name.endswith("state.json") for each in states.entries(recursive=True)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()


def _equals_an_unbroken_run(setup: Path, tmp_path: Path, run: Location) -> None:
    from pea.config.inputs import with_inputs_fetched

    overrides = [f"run_dir={tmp_path / 'local'}", f"cache_root={run}/cache"]
    config = with_inputs_fetched(load_config(setup, [*overrides, "evaluate.prompts={}"]))
    train_adapter.run(config, Console(quiet=True))
    folder = Location.parse(tmp_path / "fetched")
    for name in ("adapter/config.json", "adapter/diffusion_pytorch_model.safetensors", "training/train_log.jsonl"):
        copy_file(run / name, folder / name)
    broken = config.model_copy(update={"run_dir": tmp_path / "fetched"})
    assert same(weights(broken), weights(config))
    assert [(row["step"], row["loss"]) for row in log_rows(broken)] == [
        (row["step"], row["loss"]) for row in log_rows(config)
    ]
    assert PEA.load(broken.adapter_dir) is not None


def _other_commands(setup: Path, run: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config", str(setup)]
    assert main(["generate", "一只猫", *given, "--out", str(tmp_path / "drawn")]) == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 1
    assert main(["plan", *given]) == 0 and main(["inspect", "info", str(run)]) == 0
    assert main(["inspect", "copy", str(run), str(tmp_path / "copy")]) == 0
    assert main(["inspect", "check", str(tmp_path / "copy")]) == 0
    capsys.readouterr()
    assert main(["sweep", str(ROOT / "configs/methods"), *given]) == 2
    assert "pea sweep needs a run folder on a disk" in capsys.readouterr().err
