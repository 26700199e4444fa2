"""A search: fair candidates, halving that ends with the best, and a study of the winners that a sweep takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pea.config import load_config
from pea.errors import ConfigError, TrainingError
from stages import search
from stages.cli import main
from stages.search_plan import (
    Candidate,
    Rung,
    configurations,
    draw_candidates,
    halve,
    ranked,
    read_search,
    rung_sizes,
    with_records,
)
from stages.sweep_plan import Run, plan
from stages.sweep_study import read_study

ROOT = Path(__file__).parents[2]
SHIPPED = Path("configs/searches/methods.yaml")
SPACE = {"train.batch_size": [16, 32, 64], "train.learning_rate": [1e-3, 2e-3, 4e-3], "train.adam_beta2": [0.98, 0.999]}
PROMPTS = {"evaluate.prompts": {"general": "v.jsonl"}}
DOCUMENT = {
    "config": "configs/demo.yaml",
    "settings": PROMPTS,
    "report_prompts": {"general": "h.jsonl"},
    "methods": {
        "one": {"train": {"feature_weight": 0.0}},
        "two": {"train.phases": [{"kind": "text", "steps": 3}, {"kind": "unet"}]},
    },
    "space": {"train.batch_size": [16, 64], "train.learning_rate": [1e-3, 2e-3]},
    "candidates": 4,
    "records": 6400,
    "rungs": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT | changes))
    return path


def test_candidates_are_different_points_in_a_seeded_order() -> None:
    drawn = draw_candidates(SPACE, 16, 0)
    assert len(drawn) == len({tuple(each.settings.values()) for each in drawn}) == 16
    assert [each.name for each in drawn[:2]] == ["c00", "c01"] and drawn == draw_candidates(SPACE, 16, 0)
    assert drawn != draw_candidates(SPACE, 16, 1)
    assert [each.settings for each in draw_candidates({"a": [1, 2]}, 16, 0)] == [{"a": 1}, {"a": 2}]


def test_halving_keeps_the_better_half_and_ends_with_the_best() -> None:
    """Of a made-up objective whose error falls with the records: the best is not the best of the first rung."""
    candidates, seen = draw_candidates(SPACE, 16, 0), []

    def scored(rung: Rung) -> dict[str, float]:
        seen.append((len(rung.candidates), rung.records))
        return {
            each.name: int(each.name[1:]) - (1000 / rung.records if each.name == "c15" else 0)
            for each in rung.candidates
        }

    *_, (last, scores) = halve(candidates, 800, 4, scored)
    assert seen == rung_sizes(16, 800, 4) == [(16, 100), (8, 200), (4, 400), (2, 800)]
    assert ranked(last, scores)[0].name == "c14"
    *_, (last, scores) = halve(candidates, 8000, 4, scored)
    assert ranked(last, scores)[0].name == "c15"


def test_of_equal_scores_the_first_goes_on_and_what_failed_does_not() -> None:
    candidates = [Candidate(f"c{number:02d}", {}) for number in range(5)]
    rungs = [
        rung
        for rung, _ in halve(
            candidates, 4, 3, lambda rung: {each.name: 1.0 for each in rung.candidates if each.name != "c01"}
        )
    ]
    assert [[each.name for each in rung.candidates] for rung in rungs] == [
        ["c00", "c01", "c02", "c03", "c04"], ["c00", "c02", "c03"], ["c00", "c02"],
    ]  # fmt: skip
    assert len(list(halve(candidates, 4, 3, lambda _: {}))) == 1


def test_records_decide_the_steps_of_the_last_phase() -> None:
    config = load_config(
        "configs/demo.yaml", ["train.phases=[]", "train.batch_size=64", "train.gradient_accumulation_steps=2"]
    )
    assert with_records(config, 6400).train.steps == 50
    phases = with_records(load_config("configs/demo.yaml"), 6400).train.phases
    assert phases[-1].steps == 400 and phases[0].steps == 300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"report_prompts": {"general": "v.jsonl"}}, "both chosen by and reported"),
        ({"settings": {}}, r"evaluate\.prompts \(dotted\)"),
        ({"space": {"train.steps": [1, 2]}}, r"train\.steps is given by the search"),
        ({"space": {"train.batch_size": []}}, "no values"),
        ({"space": {"train.batch_sise": [1]}}, "train.batch_size"),
        ({"space": {"cache.seed": [0, 1]}}, "changes what the cache holds"),
        ({"rungs": 0, "recods": 3}, "2 problems"),
        ({"records": {"one": 3}}, "one for each of the methods"),
        ({"records": {"one": 3, "two": 3, "three": 3}}, "one for each of the methods"),
        ({"settings_like": {"three": "one"}}, r"settings_like\.three: one"),
        ({"settings_like": {"two": "one", "one": "two"}}, r"settings_like\.two: one"),
        ({"config": "configs/sd15.yaml", "settings": {**PROMPTS, "evaluate.clip": None}}, "nothing scores the images"),
        ({"config": "configs/demo.yaml", "settings": {**PROMPTS, "evaluate.grid": {}}}, "a search scores one row"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_is_trained(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        document = read_search(written(tmp_path, **changes))
        configurations(document, draw_candidates(document.space, document.candidates, document.seed))


def test_a_search_leaves_tables_and_a_study_of_the_winners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[Run] = []

    def fake(runs: Sequence[Run], jobs: int, console: object) -> Iterator[tuple[Run, dict[str, Any] | None]]:
        assert jobs == 2
        for run in runs:
            trained.append(run)
            good = run.config.train.all_phases[-1].train.learning_rate == 2e-3
            score = 0.5 + 0.25 * good + run.config.train.batch_size / 1000
            failed = run.config.train.batch_size == 16 and good
            result = {"scores": {"general": score, "culture": score}, "cpu_seconds": 7.4}
            yield run, None if failed else result

    monkeypatch.setattr(search, "carry_out_all", fake)
    assert main(["search", str(written(tmp_path)), "--jobs", "2", f"run_dir={tmp_path}/run"]) == 0
    assert len(trained) == 2 * (4 + 2) and len({run.config.run_dir for run in trained}) == len(trained)
    assert {run.config.evaluate.prompts["general"].name for run in trained} == {"v.jsonl"}
    left = tmp_path / "run/search/search"
    table = (left / "one/table.md").read_text()
    assert (
        table.count("\n") == 2 + 3 + 2
        and "| 1 | 6,400 |" in table
        and "| 7 |" in table
        and "train.learning_rate=0.002" in table
    )
    assert f"pea sweep {left}/study.yaml run_dir={tmp_path}/run\n" in capsys.readouterr().out
    runs = plan(read_study(left / "study.yaml")).runs
    assert [(run.method, run.seed) for run in runs] == [(name, seed) for name in ("one", "two") for seed in (0, 1, 2)]
    for run in runs:
        last = run.config.train.all_phases[-1].train
        assert (last.batch_size, last.learning_rate, last.steps) == (64, 2e-3, 100)
        assert run.config.evaluate.prompts["general"].name == "h.jsonl"
    assert runs[0].config.train.feature_weight == 0.0 and runs[-1].config.train.phases[0].kind == "text"

    def nothing(runs: Sequence[Run], *_: object) -> Iterator[tuple[Run, None]]:
        yield from ((run, None) for run in runs)

    monkeypatch.setattr(search, "carry_out_all", nothing)
    with pytest.raises(TrainingError, match="every candidate failed"):
        arguments = search.argparse.ArgumentParser()
        search.add_arguments(arguments)
        search.run_arguments(arguments.parse_args([str(written(tmp_path)), f"run_dir={tmp_path}/other"]))


def test_a_method_may_have_records_of_its_own_and_the_settings_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Run] = []

    def fake(runs: Sequence[Run], *_: object) -> Iterator[tuple[Run, dict[str, Any]]]:
        for run in runs:
            trained.append(run)
            rate = run.config.train.all_phases[-1].train.learning_rate
            yield run, {"scores": {"general": rate}, "cpu_seconds": None}

    monkeypatch.setattr(search, "carry_out_all", fake)
    path = written(tmp_path, records={"one": 6400, "two": 640}, settings_like={"two": "one"})
    assert main(["search", str(path), f"run_dir={tmp_path}/run"]) == 0
    assert {run.method.partition(",")[0] for run in trained} == {"one"}
    assert "| unknown |" in (tmp_path / "run/search/search/one/table.md").read_text()
    one, two = plan(read_study(tmp_path / "run/search/search/study.yaml"), seeds=[0]).runs
    for run, records in ((one, 6400), (two, 640)):
        last = run.config.train.all_phases[-1].train
        assert last.steps is not None and last.steps * last.batch_size == records and last.learning_rate == 2e-3
    assert one.config.train.feature_weight == 0.0 and two.config.train.phases[0].kind == "text"
    assert len({run.shared_phases for run in trained}) == 1
    for only, expected in (("one", 2), ("two", None)):
        words = ["search", str(path), f"run_dir={tmp_path}/other", "--only", only, "--dry-run"]
        assert main(words) == (0 if expected else 2)


def test_the_winners_are_trained_as_they_were_searched_and_scored_on_every_prompt(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        config="configs/things.yaml",
        settings={**PROMPTS, "evaluate.max_prompts": 4},
        methods={"one": {"train.phases": []}},
    )
    document = read_search(path)
    [winner] = draw_candidates(document.space, 1, 0)
    _, configs = configurations(document, [winner])
    study = tmp_path / "study.yaml"
    study.write_text(search.study_of(document, {"one": winner}, {"one": configs["one"][winner.name]}))
    for run in plan(read_study(study)).runs:
        assert run.config.train.phases == () == configs["one"][winner.name].train.phases
        assert run.config.evaluate.max_prompts is None


def test_a_dry_run_says_what_would_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(SHIPPED), "--dry-run", "--only", "ukd"]) == 0
    said = capsys.readouterr().out
    assert "ukd, rung 0: 6 candidates on 7,200 records" in said and "ukd, rung 1: 3 candidates on 14,400" in said
    assert main(["search", str(SHIPPED), "--dry-run", "--only", "nobody"]) == 2
