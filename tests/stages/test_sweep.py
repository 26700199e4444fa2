"""Several methods and seeds from one cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from data_tools.score_figure import figures_in
from pea.cache import Cache
from pea.cache.takedown import remove_samples
from pea.config import Config, EvaluateConfig, load_config, resolved_yaml
from stages import evaluate, train_adapter
from stages.cli import main
from stages.cluster import filling
from stages.command.console import Console
from stages.sweep import carry_out
from stages.sweep_plan import Run, plan
from stages.sweep_study import read_study
from stages.sweep_table import markdown, summarize
from tests.cache_helpers import CacheMaker
from tests.tiny_setup import fill_cache, make_setup

METHODS = Path(__file__).parents[2] / "configs" / "methods"


def runs_of(methods: Path, *files: Path, overrides: Sequence[str] = (), seeds: Sequence[int] = (0,)) -> list[Run]:
    return list(plan(read_study(methods), files, overrides, seeds=seeds).runs)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "methods").mkdir()
    (folder / "methods" / "both.yaml").write_text("train: {steps: 2}")
    (folder / "methods" / "logits.yaml").write_text("train: {steps: 2, feature_weight: 0.0}")
    (folder / "prompts.jsonl").write_text(json.dumps({"id": "p0", "captions": {"zh": "猫"}, "attributes": {}}) + "\n")
    prompts = EvaluateConfig(prompts={"general": folder / "prompts.jsonl"})
    (folder / "c.yaml").write_text(resolved_yaml(make_setup(folder).model_copy(update={"evaluate": prompts})))
    return folder


def test_every_method_fits_the_setups_that_ship() -> None:
    for setup in ("demo", "sd15", "sdxl"):
        runs = runs_of(METHODS, METHODS.parent / f"{setup}.yaml", seeds=[0, 7])
        assert len(runs) == 2 * len(list(METHODS.glob("*.yaml"))) >= 12
        assert {run.config.train.seed for run in runs} == {0, 7}
    by_name = {run.method: run.config.train for run in runs}
    assert {run.row for run in runs if run.method != "translation"} == {"adapter"}
    assert by_name["lora"].method == "lora" and by_name["kv"].method == "kv"
    assert by_name["curriculum"].curriculum_steps > 0 and by_name["perturbation"].text_perturbation > 0
    assert by_name["ulkd"].feature_weight == 0 and by_name["sd_only"].diffusion_rows == "all"
    assert len({run.config.run_dir for run in runs}) == len(runs)


@pytest.mark.slow
def test_a_sweep_trains_scores_and_keeps_what_is_finished(
    setup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored: list[Config] = []

    def judged(config: Config, _: object) -> dict[str, float]:
        scored.append(config)
        return {"adapter.general": 0.5 + 0.1 * config.train.seed, "adapter.culture": 0.25, "seconds.evaluate": 1.0}

    monkeypatch.setattr(evaluate, "run", judged)
    words = ["sweep", str(setup / "methods"), "--config", str(setup / "c.yaml"), "--seeds"]
    assert main([*words, "0"]) == 0
    assert main([*words, "0,1"]) == 0
    out = capsys.readouterr().out
    assert out.count("finished already") == 2
    assert [(c.run_dir.parent.name, c.train.seed) for c in scored] == [
        ("both", 0), ("logits", 0), ("both", 1), ("logits", 1),
    ]  # fmt: skip
    assert all((config.adapter_dir / "config.json").exists() for config in scored)
    folder = load_config(setup / "c.yaml").run_dir / "sweep"
    assert "| both | 0.550 ± 0.071 | 0.250 ± 0.000 | 2 |" in (folder / "table.md").read_text("utf-8")
    rows = json.loads((folder / "table.json").read_text())
    assert rows[0]["trained_parameters"] > 0
    assert "general: 0.550 ± 0.071 in" in (folder / "seconds.svg").read_text("utf-8")
    assert all(row["cpu_seconds"] > 0 and row["unet_rows"] > 0 for row in rows)
    shown = figures_in((folder / "figure.svg").read_text("utf-8"))
    for row in rows:
        for name, score in row["scores"].items():
            assert shown[row["method"], name] == (round(score["mean"], 3), round(score["spread"], 3))
    page = (folder / "report.html").read_text("utf-8")
    assert all(row["method"] in page for row in rows) and "against" in page


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_does_not_end_the_others(
    setup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    (tmp_path / "bad.yaml").write_text("train: {block_weights: {attic: 1.0}}")
    (tmp_path / "good.yaml").write_text("train: {steps: 1}")
    settings = [f"run_dir={tmp_path / str(jobs)}", f"cache_root={setup / 'run/cache'}"]
    settings.append("evaluate.num_inference_steps=1")
    words = ["sweep", str(tmp_path), "--config", str(setup / "c.yaml"), "--jobs", str(jobs), *settings]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "bad, seed 0 failed: train.block_weights: no such block" in said.out and "| good |" in said.out
    assert "1 of 2 runs failed; got bad, seed 0" in said.err


@pytest.mark.slow
def test_a_result_is_kept_when_the_program_gets_new_settings(
    setup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "run", lambda *_: {"translation.general": 0.5})
    (tmp_path / "words.yaml").write_text("evaluate: {rows: [translation]}")
    overrides = [f"run_dir={json.dumps(str(tmp_path / 'run'))}"]
    [run] = runs_of(tmp_path / "words.yaml", setup / "c.yaml", overrides=overrides)
    carry_out(run, Console(quiet=True))
    written = json.loads(run.result_path.read_text("utf-8"))
    assert run.result() == written
    for change, kept in (({"culture_timesteps": None}, True), ({"steps": 77}, False), ({"sleeps": 1}, False)):
        older = json.loads(json.dumps(written))
        if kept:
            del older["settings"]["train"][next(iter(change))]
        else:
            older["settings"]["train"] |= change
        run.result_path.write_text(json.dumps(older), encoding="utf-8")
        assert (run.result() is not None) == kept, change


@pytest.mark.slow
def test_a_result_of_other_rows_is_not_kept(
    setup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_cache: CacheMaker
) -> None:
    monkeypatch.setattr(train_adapter, "run", lambda *_: {"seconds": 1.0, "trained_parameters": 1})
    monkeypatch.setattr(evaluate, "run", lambda *_: {"adapter.general": 0.5})
    make_cache.directory = tmp_path / "caches" / "parallel"
    cache = make_cache.fill()
    overrides = [f"run_dir={json.dumps(str(tmp_path / 'run'))}", f"cache_root={json.dumps(str(tmp_path / 'caches'))}"]
    [run] = runs_of(setup / "methods" / "both.yaml", setup / "c.yaml", overrides=overrides)
    carry_out(run, Console(quiet=True))
    assert run.result() is not None
    (make_cache.directory / "run_summary.json").write_text("{}")
    assert run.result() is not None, "a report is no row"
    shutil.move(tmp_path / "caches", tmp_path / "away")
    assert run.result() is not None, "a result outlives its cache"
    shutil.move(tmp_path / "away", tmp_path / "caches")
    remove_samples(cache, "a", ["a-24x32-1"])
    assert run.result() is None


@pytest.mark.slow
def test_a_method_without_training_is_scored_alone(
    setup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.yaml").write_text("evaluate: {rows: [translation]}")
    monkeypatch.setattr(evaluate, "run", lambda config, _: {f"{config.evaluate.rows[0]}.general": 0.75, "x.general": 0})
    base = f"run_dir={json.dumps(str(tmp_path / 'run'))}"
    assert main(["sweep", str(tmp_path / "words.yaml"), "--config", str(setup / "c.yaml"), base]) == 0
    assert "| words | 0.750 | 1 | 0 | 0 | 0.0 | 0 |" in capsys.readouterr().out
    assert not (tmp_path / "run/sweep/words/seed0/adapter").exists()


@pytest.mark.slow
def test_a_method_that_changes_the_cache_gets_one_of_its_own(
    setup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("a", "cache: {sketch: {kind: fold, ratio: 4}}"), ("b", "cache: {run: {batch_size: 3}}")):
        (tmp_path / f"{name}.yaml").write_text(f"{text}\ntrain: {{steps: 1}}")
    filled: list[Config] = []

    def fill(config: Config, _: object) -> None:
        filled.append(config)
        for corpus in ("parallel", "culture"):
            fill_cache(config, corpus, setup)

    monkeypatch.setattr(filling, "fill_caches", fill)
    monkeypatch.setattr(evaluate, "run", lambda config, _: {"adapter.general": 0.5})
    words = ["sweep", str(tmp_path), "--config", str(setup / "c.yaml"), "--seeds", "0,1"]
    for _ in range(2):  # the second time, everything is there
        assert main([*words, f"cache_root={setup / 'run/cache'}", f"run_dir={tmp_path / 'run'}"]) == 0
    own = tmp_path / "run/sweep/a/cache"
    assert [config.cache_root for config in filled] == [own]
    assert Cache.open(own / "parallel").shards
    assert not (tmp_path / "run/sweep/b/cache").exists()  # how a cache is filled is not what it holds
    assert "figure.svg" not in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_side_by_side_give_what_one_after_the_other_gives(setup: Path, tmp_path: Path) -> None:
    adapters = []
    for jobs in (1, 2):
        settings = [f"run_dir={tmp_path / str(jobs)}", f"cache_root={setup / 'run/cache'}"]
        settings.append("evaluate.num_inference_steps=1")
        words = ["sweep", str(setup / "methods"), "--config", str(setup / "c.yaml"), "--jobs", str(jobs)]
        assert main([*words, "--seeds", "0,1", *settings]) == 0
        folder = tmp_path / str(jobs) / "sweep"
        adapters.append([load_file(path) for path in sorted(folder.glob("*/*/adapter/*.safetensors"))])
        assert len(adapters[-1]) == 4 and (folder / "table.md").read_text("utf-8").count("\n") == 4
        assert not (folder / "figure.svg").exists()  # no judge, no scores
    for one, other in zip(*adapters, strict=True):
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor)


@pytest.mark.slow
def test_jobs_end_with_a_sweep_that_is_killed(setup: Path, tmp_path: Path) -> None:
    words = ["sweep", str(setup / "methods"), "--config", str(setup / "c.yaml"), "--jobs", "2", "train.steps=100000"]
    settings = [f"run_dir={tmp_path}", f"cache_root={setup / 'run/cache'}"]
    sweep = subprocess.Popen([sys.executable, "-m", "stages.cli", *words, *settings])
    logs = [tmp_path / "sweep" / method / "seed0/log.txt" for method in ("both", "logits")]
    deadline = time.monotonic() + 120
    while not all(log.exists() for log in logs):
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    jobs = psutil.Process(sweep.pid).children(recursive=True)
    assert len(jobs) >= 2
    sweep.kill()
    sweep.wait()
    _, alive = psutil.wait_procs(jobs, timeout=30)
    assert not alive


@pytest.mark.slow
def test_settings_may_follow_the_options(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", str(setup / "methods"), "--config", str(setup / "c.yaml"), "--seeds", "3", "--dry-run"]
    assert main([*words, "run_dir=elsewhere"]) == 0
    assert "elsewhere/sweep/logits/seed3" in capsys.readouterr().out
    for wrong in ("--nonsense=1", "word"):
        with pytest.raises(SystemExit):
            main([*words, wrong])
        assert f"unrecognized arguments: {wrong}" in capsys.readouterr().err


@pytest.mark.slow
def test_bad_requests(setup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(setup / "c.yaml")]

    def refused(*words: str) -> str:
        assert main(["sweep", *words]) == 2
        return capsys.readouterr().err

    assert "no methods here" in refused(str(tmp_path), *config)
    for wrong in ("a", "0,0", "-1", ""):
        assert "not a list of seeds" in refused(str(METHODS), *config, f"--seeds={wrong}")
    grid = refused(str(setup / "methods"), *config, "evaluate.grid={}", "evaluate.prompts={general: p.jsonl}")
    assert "evaluate.grid: a sweep scores one row of each method" in grid
    assert "nothing to score the methods on" in refused(str(setup / "methods"), *config, "evaluate.prompts={}")
    assert "no setup to sweep the methods over; expected --config FILE" in refused(str(setup / "methods"))
    assert "no such variant; expected of both, logits; got bth" in refused(
        str(setup / "methods"), *config, "--only", "logits,bth"
    )
    for name in ("m", "n"):
        (tmp_path / f"{name}.yaml").write_text(f"train: {{stepps: 3, {name}: 1}}")
    said = refused(str(tmp_path), *config)
    assert "4 problems in the methods" in said, "of all methods at once"
    assert "m: unknown key train.stepps (did you mean train.steps?)" in said and "n: unknown key train.n" in said


def test_the_best_general_score_comes_first() -> None:
    def result(score: float) -> dict[str, object]:
        costs = {"seconds": 1.0, "tflop": 2.0, "trained_parameters": 5, "bytes_per_record": 10 + score}
        return {"scores": {"general": score}, "cpu_seconds": 2e3 + score * 10, "unet_rows": 6400, **costs}

    older = result(0.9)
    del older["cpu_seconds"], older["unet_rows"]
    rows = summarize([("a", result(0.2)), ("b", older), ("a", result(0.4))])
    assert [(row["method"], row["seeds"]) for row in rows] == [("b", 1), ("a", 2)]
    assert "| a | 0.300 ± 0.141 | 2 | 2,003 | 6,400 | 2.0 | 5 | 10 |" in markdown(rows)
    assert "| b | 0.900 | 1 | unknown | unknown | 2.0 |" in markdown(rows)
    assert "bytes a record" not in markdown(rows[:1])  # said only where methods differ
