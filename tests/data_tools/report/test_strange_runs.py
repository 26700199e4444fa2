"""Reports of runs unlike the demo: every sentence is of this run, and what is not known is not said."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_tools.report.answer import listed
from data_tools.report.examples import furthest_behind
from data_tools.report.scores import score_plots
from data_tools.report.training import loss_charts, training_note
from pea.config import Config, TrainConfig
from pea.evaluation.prompts import Prompt
from pea.evaluation.record import adapter_digest
from pea.file_names import LORA_FILE, MODEL_CONFIG
from tests.data_tools.report.runs import page_of, said_by, score_of
from tests.tiny_setup import make_setup


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A setup that was never trained."""
    return make_setup(tmp_path_factory.mktemp("strange"))


def _adapter(folder: Path, *, lora: bool = False) -> Path:
    """A folder that looks like an adapter's."""
    adapter = folder / "adapter"
    adapter.mkdir(parents=True)
    (adapter / MODEL_CONFIG).write_text("{}")
    (adapter / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    if lora:
        (adapter / LORA_FILE).write_bytes(b"lora")
    return adapter


def test_what_another_adapter_drew_and_scored_is_left_out(config: Config, tmp_path: Path) -> None:
    digest = adapter_digest(_adapter(tmp_path / "run"))
    own = score_of(0.6) | {"settings": {"row": "adapter", "adapter": "another"}}
    details = {"teacher.general": score_of(0.8), "adapter.general": own}
    said = said_by(page_of(config, tmp_path / "run", details=details, settings={"adapter": {"adapter": "another"}}))
    assert "Scores and pictures of another adapter, or of other prompts, are left out" in said
    assert "0.600" not in said and "trained adapter" not in said and "its own images have no scores" in said
    own["settings"]["adapter"] = digest
    shutil.rmtree(tmp_path / "run/evaluate")
    said = said_by(page_of(config, tmp_path / "run", details=details, settings={"adapter": {"adapter": digest}}))
    assert "left out" not in said and "75% of the teacher's score (general prompts)." in said


def test_pictures_of_other_prompts_are_left_out(config: Config, tmp_path: Path) -> None:
    said = said_by(page_of(config, tmp_path / "run", settings={"teacher": {"prompts": "others"}}))
    assert "of other prompts, are left out" in said and "teacher, English caption" not in said


def test_each_language_has_its_own_answer(config: Config, tmp_path: Path) -> None:
    three = config.student.model_copy(update={"language": ("zh", "ja", "ko")})
    details = {"teacher.general": score_of(0.8), "adapter.general": score_of(0.6), "adapter_ja.general": score_of(0.4)}
    said = said_by(page_of(config, tmp_path / "run", details=details, student=three))
    assert said.startswith("zh, ja and ko prompts for teacher ")
    first = "75% of the teacher's score (general prompts in zh), 50% of the teacher's score (general prompts in ja)."
    assert f"An adapter from zh, ja and ko to teacher: {first}" in said, "and nothing of ko, which was not scored"
    assert listed(["zh"]) == "zh" and listed(["zh", "ja"]) == "zh and ja"


def test_scores_of_other_prompts_do_not_compare_though_they_are_as_many(config: Config, tmp_path: Path) -> None:
    details = {"teacher.general.clip": score_of(0.4), "adapter.general.clip": score_of(0.3)}
    scores = {"teacher": {"p0": 0.4}, "adapter": {"p1": 0.3}}
    drawn = {row: list(each) for row, each in scores.items()}
    said = said_by(page_of(config, tmp_path / "run", details=details, drawn=drawn, scores=scores))
    assert "CLIP score 0.300 (general prompts)." in said and "the teacher's is" not in said


def test_a_teacher_alone_is_scored_without_the_adapter(config: Config, tmp_path: Path) -> None:
    page = page_of(config, tmp_path / "run", details={"teacher.general": score_of(0.8)}, drawn={"teacher": ["p0"]})
    said = said_by(page)
    assert "its own images have no scores" in said and "nothing has scored them" not in said
    assert "start from the same noise" not in said, "there is one picture a prompt"
    assert "dashed line" not in said and "Use this adapter" not in said, "there is none"


def test_a_score_that_is_no_number(config: Config, tmp_path: Path) -> None:
    nan = float("nan")
    broken = {"mean": {"accuracy": nan, "low": None, "high": None, "n": 2}}
    details = {"adapter.general.image_reward": broken, "teacher.general.image_reward": score_of(-1.2)}
    page = page_of(config, tmp_path / "run", details=details, scores={"adapter": {"p0": nan, "p1": 0.2}})
    assert "not a number n = 2" in said_by(page) and "nan%" not in page and ">nan<" not in page
    assert "-1.450 to -0.950" in said_by(page)
    assert not score_plots({"adapter.general.image_reward": broken}, ["general"])[0]["compared"]


def test_better_than_the_teacher(config: Config, tmp_path: Path) -> None:
    details = {"teacher.general": score_of(0.4), "adapter.general": score_of(0.6)}
    scores = {"teacher": {"p0": 0.2, "p1": 0.2}, "adapter": {"p0": 0.3, "p1": 0.3}}
    said = said_by(page_of(config, tmp_path / "run", details=details, scores=scores))
    assert "150% of the teacher's score" in said and "furthest behind" not in said


def test_a_run_on_english_prompts_shows_them_once(config: Config, tmp_path: Path) -> None:
    english = config.student.model_copy(update={"language": "en"})
    said = said_by(page_of(config, tmp_path / "run", captions={"en": "a cat"}, student=english))
    assert said.count("a cat0") == 1 and "English: a cat" not in said


def test_the_lines_that_use_an_adapter_load_its_lora(config: Config, tmp_path: Path) -> None:
    _adapter(tmp_path / "run", lora=True)
    page = said_by(page_of(config, tmp_path / "run"))
    assert f'pipe.load_lora_weights("{tmp_path}/run/adapter")' in page


def test_a_cache_without_captions_in_the_language(config: Config, tmp_path: Path) -> None:
    other = config.student.model_copy(update={"language": ("ja",)})
    said = said_by(page_of(config, tmp_path / "run", student=other, cache_root=config.run_dir / "cache"))
    assert "Caption: “" not in said and "One row per draw: the noise prediction" in said


def _summary(kinds: Mapping[str, int], **more: Any) -> dict[str, Any]:
    phases = [{"kind": kind, "steps": steps} for kind, steps in kinds.items()]
    facts = {"steps": sum(kinds.values()), "trained_parameters": 10, "records": 36, "culture_samples": 0}
    return facts | {"targets": "cached", "captions": {"parallel": {"with_caption": 12}}, "phases": phases} | more


def test_what_was_trained_on() -> None:
    note = training_note(_summary({"text": 1}), "1 s")
    assert note == "1 optimizer step on texts alone in 1 s, 10 trained parameters, captions of 12 samples."
    note = training_note(_summary({"text": 2, "attention": 3}), "1 s")
    assert note.startswith("5 optimizer steps (2 on texts alone, 3 on cached attention queries) in 1 s")
    assert note.endswith("36 cached records.")
    note = training_note(_summary({"unet": 4}, targets="live", culture_samples=1), "1 s")
    assert "36 records, answered by the teacher at every step, 1 culture image." in note and "cached" not in note


def test_phases_of_another_configuration_say_nothing_of_the_parts(config: Config) -> None:
    """The default phases were others when this run was trained."""
    log = [{"step": step, "phase": 1, "loss": 0.5, "noise_pred": 0.25, "features": 0.1} for step in (1, 2)]
    train = TrainConfig(feature_weight=2.5)
    assert train.all_phases[0].kind == "text"
    chart = loss_charts(config.model_copy(update={"train": train}), log, _summary({"unet": 2}))[0]
    assert not chart["terms"] and chart["title"] == "With the UNet"
    one = train.model_copy(update={"phases": ()})
    assert loss_charts(config.model_copy(update={"train": one}), log, _summary({"unet": 2}))[0]["terms"]


def test_a_text_phase_has_one_line_and_no_sum(config: Config) -> None:
    log = [{"step": step, "phase": 1, "loss": 0.5, "text": 0.25} for step in (1, 2)]
    for error, label in (("distance", "loss (distance)"), ("square", "loss (mean squared error)")):
        train = TrainConfig.model_validate({"phases": [{"kind": "text"}], "text_error": error}, strict=False)
        (chart,) = loss_charts(config.model_copy(update={"train": train}), log, _summary({"text": 2}))
        assert label in chart["chart"] and not chart["terms"]


def test_without_the_teacher_no_full_score_is_supposed() -> None:
    prompts = [Prompt(name, {}, {}) for name in "abc"]
    own = {"a": 0.31, "b": 0.22, "c": 0.31}
    assert [each.id for each in furthest_behind(prompts, {"adapter": own})] == ["b"], "cosines have no 1 to reach"
    assert furthest_behind(prompts, {"adapter": own, "teacher": {"a": 0.3}}) == [], "what it did not draw"


def test_a_page_of_an_evaluation_that_ended_half_way(config: Config, tmp_path: Path) -> None:
    """`pea eval` forgets what it is about to draw anew: those images are of no finished evaluation."""
    said = said_by(page_of(config, tmp_path / "run", recorded=[]))
    assert "no evaluation of it is finished" in said and "Pictures" not in said
