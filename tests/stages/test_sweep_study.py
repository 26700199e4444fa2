"""What a sweep is told: study files, and folders of method files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pea.config import load_config, resolved_yaml
from pea.errors import ConfigError
from stages.cli import main
from stages.command.console import Console
from stages.sweep import fill_caches
from stages.sweep_plan import plan
from stages.sweep_study import read_study
from tests.config.test_config import MINIMAL

STUDY = """
config: setup.yaml
seeds: [0, 4]
settings: {train: {steps: 7}, evaluate.prompts: {general: p.jsonl}}
variants:
  slow: {train: {learning_rate: 1.0e-5}}
  as_it_is: {}
  fine: {train.steps: 9, cache: {sketch: {kind: exact}}}
  teacher: {evaluate: {rows: [teacher]}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("setup.yaml").write_text(
        MINIMAL.replace("data/", "{run_dir}/data/") + "evaluate: {prompts: {culture: c.jsonl}, rows: [translation]}"
    )
    Path("studies").mkdir()
    Path("studies/speed.yaml").write_text(STUDY)
    return tmp_path


def test_a_study_is_one_file() -> None:
    sweep = plan(read_study(Path("studies/speed.yaml")))
    assert sweep.folder == Path("runs/test/sweep")
    assert [(run.method, run.seed) for run in sweep.runs] == [
        ("slow", 0), ("slow", 4), ("as_it_is", 0), ("as_it_is", 4), ("fine", 0), ("fine", 4), ("teacher", 0),
        ("teacher", 4),
    ]  # fmt: skip
    slow, _, as_it_is, _, fine, last, teacher, _ = sweep.runs
    assert (slow.config.train.learning_rate, slow.config.train.steps) == (1e-5, 7)
    assert (as_it_is.config.train.steps, fine.config.train.steps) == (7, 9)
    assert {run.config.evaluate.prompts["general"] for run in sweep.runs} == {Path("p.jsonl")}
    assert slow.config.evaluate.prompts.keys() == {"general"}, "a dotted setting replaces all"
    assert last.config.train.seed == 4 and last.config.run_dir == Path("runs/test/sweep/fine/seed4")
    assert fine.own_cache and fine.config.cache_root == Path("runs/test/sweep/fine/cache")
    assert not slow.own_cache and slow.config.cache_root == Path("runs/test/cache")
    assert (slow.row, teacher.row) == ("adapter", "teacher")


def test_variants_that_cache_alike_share_a_cache_whichever_are_chosen() -> None:
    study = """
config: setup.yaml
variants:
  setups: {}
  fine: {cache: {sketch: {kind: exact}}}
  finer: {cache: {sketch: {kind: exact}}, train: {steps: 9}}
  coarse: {cache: {sketch: {kind: fold, ratio: 16}}}
"""
    Path("share.yaml").write_text(study)
    runs = {run.method: run for run in plan(read_study(Path("share.yaml"))).runs}
    assert {name: str(run.config.cache_root) for name, run in runs.items()} == {
        "setups": "runs/test/cache",
        "fine": "runs/test/sweep/fine/cache",
        "finer": "runs/test/sweep/fine/cache",
        "coarse": "runs/test/sweep/coarse/cache",
    }
    [alone] = plan(read_study(Path("share.yaml")), only=["finer"]).runs
    assert alone == runs["finer"] and alone.own_cache


def test_a_shared_cache_is_filled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[str] = []
    monkeypatch.setattr("stages.cluster.filling.fill_caches", lambda config, _: filled.append(str(config.cache_root)))
    Path("share.yaml").write_text(
        "config: setup.yaml\nseeds: [0, 1]\nvariants: {a: {cache.seed: 5}, b: {cache.seed: 5}, c: {cache.seed: 6}}"
    )
    fill_caches(plan(read_study(Path("share.yaml"))).runs, Console(quiet=True))
    assert filled == ["runs/test/sweep/a/cache", "runs/test/sweep/c/cache"]


def test_paths_follow_the_sweeps_run_dir_and_not_each_runs() -> None:
    study = read_study(Path("studies/speed.yaml"))
    for overrides, data in (([], "runs/test/data/*.tar"), (["run_dir=other"], "other/data/*.tar")):
        runs = plan(study, overrides=overrides).runs
        assert {run.config.corpora.parallel.tars for run in runs} == {(data,)}
    assert len({run.config.run_dir for run in runs}) == len(runs)
    Path("method.yaml").write_text("run_dir: its_own\ntrain: {steps: 3}")
    [run] = plan(read_study(Path("method.yaml")), [Path("setup.yaml")]).runs
    assert run.config.corpora.parallel.tars == ("runs/test/data/*.tar",) and not run.own_cache


def test_the_command_line_replaces_setup_and_seeds_and_chooses_variants() -> None:
    Path("other.yaml").write_text(MINIMAL.replace("runs/test", "runs/other"))
    study = read_study(Path("studies/speed.yaml"))
    sweep = plan(study, [Path("other.yaml")], ["train.steps=3"], seeds=[1], only=["teacher", "slow"])
    assert [run.config.run_dir for run in sweep.runs] == [
        Path("runs/other/sweep/slow/seed1"), Path("runs/other/sweep/teacher/seed1"),
    ]  # fmt: skip
    assert {run.config.train.steps for run in sweep.runs} == {3}
    assert study.seeds == (0, 4)


def test_the_same_variants_in_a_folder_give_the_same_runs() -> None:
    """Which is why results of either are kept for the other."""
    Path("methods").mkdir()
    Path("methods/slow.yaml").write_text("train: {steps: 7, learning_rate: 1.0e-5}")
    Path("methods/teacher.yaml").write_text("train: {steps: 7}\nevaluate: {rows: [teacher]}")
    Path("setup.yaml").write_text(MINIMAL + "evaluate: {prompts: {general: p.jsonl}}")
    files = [Path("setup.yaml")]
    listed = plan(read_study(Path("methods")), files, seeds=[0, 4])
    assert listed == plan(read_study(Path("studies/speed.yaml")), files, only=["slow", "teacher"])


def test_finished_runs_are_known_to_a_study_from_a_folders_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    run = plan(read_study(Path("studies/speed.yaml")), only=["slow"]).runs[0]
    run.config.run_dir.mkdir(parents=True)
    run.result_path.write_text(json.dumps({"scores": {}, "settings": run.settings}))
    assert main(["sweep", "studies/speed.yaml", "--dry-run", "--only", "slow,fine", "--seeds", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "slow, seed 0: runs/test/sweep/slow/seed0, finished already",
        "fine, seed 0: runs/test/sweep/fine/seed0, with a cache of its own",
    ]
    assert not Path("runs/test/sweep/fine").exists()


def test_problems_of_all_variants_come_at_once() -> None:
    Path("wrong.yaml").write_text(
        "config: [setup.yaml]\nvariants:\n  a: {train: {stepz: 1}}\n  b: {train.steps: many, cache.sed: 1}"
    )
    with pytest.raises(ConfigError) as caught:
        plan(read_study(Path("wrong.yaml")))
    said = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 3 and str(caught.value).startswith("wrong.yaml: 3 problems in the methods; ")
    assert "a: unknown key train.stepz (did you mean train.steps?)" in said
    assert "b: train.steps: input should be a valid integer (got 'many')" in said
    assert "b: unknown key cache.sed (did you mean cache.seed?)" in said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("variants: {a: {}}\nsead: [1]", "unknown key sead (did you mean seeds?)"),
        ("config: setup.yaml\nvariant: {a: {}}", "unknown key variant (did you mean variants?)"),
        ("config: setup.yaml", "variants is missing"),
        ("variants: {}", "variants: dictionary should have at least 1 item"),
        ("variants: {a: }", "variants.a: input should be an object (got None)"),
        ("variants: {../a: {}}", "variants.../a.[key]: string should match pattern"),
        ("variants: {a: {}}\nseeds: [-1]", "seeds.0: input should be greater than or equal to 0"),
        ("variants: {a: {}}\nseeds: ['1']", "seeds.0: input should be a valid integer"),
        ("variants: {a: {}}\nseeds: []", "seeds: tuple should have at least 1 item"),
        ("variants: {a: {}}\nseeds: [1, 1]", "a seed occurs twice"),
        ("variants: {a: {train: {seed: 3}}}", "variants.a: train.seed is given to each run by the sweep"),
        ("variants: {a: {}}\nsettings: {train.seed: 3}", "settings: train.seed is given to each run by the sweep"),
        ("variants: {a: {run_dir: x}, b: {cache_root: y}}", "variants.b: cache_root is given to each run by the sweep"),
    ],
)
def test_a_wrong_study_is_refused(text: str, problem: str) -> None:
    Path("wrong.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_study(Path("wrong.yaml"))
    assert problem in str(caught.value)


def test_a_study_is_no_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "studies", "--config", "setup.yaml"]) == 2
    error = capsys.readouterr().err
    assert "studies/speed.yaml: a study among method files" in error
    command = error.strip().rpartition("by itself: pea ")[2].split()
    assert main([*command, "--dry-run"]) == 0, "the command that the message quotes"


def test_a_run_can_be_repeated_from_its_resolved_configuration() -> None:
    for run in plan(read_study(Path("studies/speed.yaml"))).runs:
        Path("resolved.yaml").write_text(resolved_yaml(run.config))
        assert load_config("resolved.yaml") == run.config
