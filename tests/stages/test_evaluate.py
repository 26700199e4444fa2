"""Scoring: four rows from the same noise, kept images, metrics beside those of other stages."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pea.config import Config, EvaluateConfig, ScorersConfig, load_config, resolved_yaml
from pea.errors import CheckpointError, EvaluationError
from pea.evaluation.prompts import Prompt, read_prompts
from pea.evaluation.scorers.clip_scorers import PickScore
from pea.file_names import METRICS
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.tensor_files import digest_of
from pea.models.unet_values import unet_values
from pea.storage.durable import temporary_sibling
from stages import evaluate, generate, scoring
from stages.command.console import Console
from stages.score_settings import ScoreSettings
from tests.evaluation.scorers.published_files import make_clip
from tests.pictures import size_of
from tests.tiny_models import make_checkpoint, make_native_encoder

QUIET = Console(quiet=True)


ROOT = Path(__file__).parents[2]
WORLD = ROOT / "data_tools/world/checkpoints"


class _Judge:
    """Calls an image bright or dark."""

    def read(self, images: np.ndarray) -> dict[str, list[str]]:
        assert images.dtype == np.uint8
        return {"light": ["bright" if image.mean() > 127 else "dark" for image in images]}


ROWS_OF_THREE = (("teacher", "en"), ("adapter", "zh"), ("adapter_ko", "ko"))


def english_never(texts: object) -> Conditioning:
    raise AssertionError(texts)


@pytest.fixture(scope="module")
def config(evaluated_config: Config) -> Config:
    return evaluated_config


@pytest.mark.slow
def test_metrics_and_images(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_judge", lambda folder: _Judge())
    (config.run_dir / "metrics.json").write_text('{"cache.records": 48, "teacher.general": 9}')
    returned = evaluate.run(config, QUIET)
    metrics = json.loads((config.run_dir / "metrics.json").read_text())
    names = {f"{row}.{name}" for row in ("no_adapter", "adapter") for name in ("general", "culture")}
    names |= {"teacher.general", "teacher.culture_described", "translation.culture"}
    assert set(metrics) == names | {"details", "drawings", "cache.records", "seconds.train", "seconds.evaluate"}
    assert metrics["cache.records"] == 48 and metrics["teacher.general"] == returned["teacher.general"] <= 1
    detail = metrics["details"]["adapter.culture"]
    assert detail["mean"]["n"] == 3 and detail["attributes"]["light"]["n"] == 3
    for row in evaluate.ROWS:
        folder = config.run_dir / "evaluate" / row / "culture"
        images = ["grid.png", *(f"p{n}.png" for n in range(3))]
        assert sorted(path.name for path in folder.iterdir()) == [*images, "scores.jsonl"]
        scored = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
        assert [each["id"] for each in scored] == ["p0", "p1", "p2"] and {e["accuracy"] for e in scored} <= {0.0, 1.0}
    assert size_of(config.run_dir / "evaluate/adapter/general/grid.png") == (5 * 16, 16)


def _evaluated(config: Config, folder: Path, console: Console = QUIET, **changes: object) -> dict[str, Any]:
    """What `metrics.json` holds after an evaluation in a folder, with other settings than the fixture's."""
    if not (folder / "adapter").exists():
        shutil.copytree(config.adapter_dir, folder / "adapter")
    settings = config.evaluate.model_copy(update={"num_inference_steps": 1, **changes})
    evaluate.run(config.model_copy(update={"run_dir": folder, "evaluate": settings}), console)
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert set(content["details"]) == {name for name in content if name[:4] in ("adap", "no_a", "teac", "tran")}
    return content


@pytest.mark.slow
def test_scores_of_other_settings_do_not_stand_side_by_side(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "load_judge", lambda folder: _Judge())
    everything = _evaluated(config, tmp_path)
    assert everything["details"]["teacher.general"]["settings"]["num_prompts"] == 5
    same = _evaluated(config, tmp_path, rows=("adapter",))
    assert set(same["details"]) == set(everything["details"]), "equal settings: the other rows still compare"
    said = io.StringIO()
    other = _evaluated(config, tmp_path, Console(file=said), rows=("adapter",), num_inference_steps=2)
    assert "Judge's accuracy, mean over attributes\n" in said.getvalue(), "and no scorers, of which there are none"
    assert set(other["details"]) == {"adapter.general", "adapter.culture"}
    assert set(other["drawings"]) == {"adapter/general", "adapter/culture"}
    assert "the former score teacher.general is dropped (num_inference_steps 1 -> 2)" in said.getvalue()


@pytest.mark.slow
def test_fewer_prompts_or_another_adapter_make_former_scores_incomparable(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "load_judge", lambda folder: _Judge())
    _evaluated(config, tmp_path)
    retrained_adapter = PEA.load(tmp_path / "adapter")
    next(retrained_adapter.parameters()).data += 1
    retrained_adapter.save_pretrained(tmp_path / "adapter")
    retrained = _evaluated(config, tmp_path, rows=("teacher",))
    rows = {name.split(".")[0] for name in retrained["details"]}
    assert rows == {"teacher", "translation", "no_adapter"}, "only the adapter's scores were of the former weights"
    fewer = _evaluated(config, tmp_path, rows=("adapter",), max_prompts=2)
    assert set(fewer["details"]) == {"adapter.general", "adapter.culture"}
    assert {detail["mean"]["n"] for detail in fewer["details"].values()} == {2}


@pytest.mark.slow
def test_an_evaluation_that_ends_half_way_leaves_no_former_scores_beside_its_images(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "load_judge", lambda folder: _Judge())
    before = _evaluated(config, tmp_path, rows=("teacher",))
    with monkeypatch.context() as stopped:
        stopped.setattr(evaluate, "save_images", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _evaluated(config, tmp_path, rows=("teacher",))
        assert json.loads((tmp_path / METRICS).read_text()) == before, "of equal settings come equal images"
        with pytest.raises(KeyboardInterrupt):
            _evaluated(config, tmp_path, rows=("teacher",), num_inference_steps=2)
    left = json.loads((tmp_path / METRICS).read_text())
    assert left["details"] == {} == left["drawings"] and "teacher.general" not in left


def _rows_drawn(config: Config, folder: Path, rows: tuple[str, ...] | None, console: Console = QUIET) -> set[str]:
    """`row/prompt set` of each sheet that a short evaluation leaves; `rows`: None is the default."""
    (folder / "adapter").symlink_to(config.adapter_dir)
    settings = {"judge": None, "num_inference_steps": 1} | ({} if rows is None else {"rows": rows})
    changed = {"run_dir": folder, "evaluate": config.evaluate.model_copy(update=settings)}
    evaluate.run(config.model_copy(update=changed), console)
    return {path.parent.relative_to(folder / "evaluate").as_posix() for path in folder.rglob("grid.png")}


@pytest.mark.slow
def test_prompts_without_a_translation_leave_that_row_out(config: Config, tmp_path: Path) -> None:
    said = io.StringIO()
    drawn = _rows_drawn(config, tmp_path, None, Console(file=said))
    assert "translation/culture" in drawn and "translation/general" not in drawn and "teacher/general" in drawn
    notice = "row translation, prompts general: left out, 5 of 5 prompts have no caption translation_zh\n"
    assert notice in said.getvalue() and said.getvalue().count("left out") == 1


def test_a_translation_that_is_asked_for_has_to_be_there(config: Config, tmp_path: Path) -> None:
    wanted = (
        r"general.jsonl: the row `translation` .* expected a caption translation_zh .* got none in 5 of 5, first p0"
    )
    with pytest.raises(EvaluationError, match=wanted) as caught:
        _rows_drawn(config, tmp_path, ("teacher", "translation"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evaluate").exists()


def test_prompts_without_a_caption_are_left_out_counted_and_said(config: Config) -> None:
    texts = ({"en": "a cat", "zh": "一只猫"}, {"en": "a dog", "zh": " "[:0]}, {"en": "x", "zh": "猫", "ko": "고양이"})
    prompts = [Prompt(f"p{number}", captions, {}) for number, captions in enumerate(texts)]
    rows = [evaluate.Row(name, language, english_never) for name, language in ROWS_OF_THREE]
    said = io.StringIO()
    drawn = evaluate.drawings_of(config, Console(file=said), rows, {"general": prompts})
    asked = {row.name: [prompt.id for prompt in found] for row, _, found in drawn}
    assert asked == {"teacher": ["p0", "p2"], "adapter": ["p0", "p2"], "adapter_ko": ["p2"]}
    assert "row adapter_ko, prompts general: 2 of 3 have no caption ko, and are left out\n" in said.getvalue()
    assert "row teacher, prompts general: 1 of 3 have no caption en and zh, and are left out\n" in said.getvalue()
    alone = {"general": prompts[1:2]}
    with pytest.raises(EvaluationError, match=r"general.jsonl: no caption named 'zh'; got prompt p1"):
        evaluate.drawings_of(config, QUIET, rows, alone)
    assert evaluate.drawings_of(config, QUIET, rows[2:], alone) == []


def test_a_saved_configuration_asks_for_the_rows_that_the_first_one_did(config: Config, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(resolved_yaml(config), encoding="utf-8")
    sets = {"general": read_prompts(config.evaluate.prompts["general"])}
    evaluate.check_translations(load_config(tmp_path / "c.yaml"), QUIET, sets)


@pytest.mark.slow
def test_without_a_judge_there_are_images_only(config: Config, tmp_path: Path) -> None:
    (tmp_path / "adapter").symlink_to(config.adapter_dir)
    (tmp_path / "training").symlink_to(config.training_dir)
    settings = config.evaluate.model_copy(update={"judge": None, "max_prompts": 1, "num_inference_steps": 1})
    left = [temporary_sibling(tmp_path / name) for name in (METRICS, "evaluate/teacher/general/grid.png")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - 3600,) * 2)
    metrics = evaluate.run(config.model_copy(update={"run_dir": tmp_path, "evaluate": settings}), QUIET)
    assert set(metrics) == {"details", "seconds.train", "seconds.evaluate"} and metrics["details"] == {}
    assert (tmp_path / "evaluate/adapter/culture/p0.png").exists()
    assert not any(path.exists() for path in left), "a dead process left them"


@pytest.mark.slow
def test_a_clip_scores_where_no_judge_can(config: Config, tmp_path: Path) -> None:
    (tmp_path / "adapter").symlink_to(config.adapter_dir)
    changes = {"judge": None, "num_inference_steps": 1, "clip": WORLD / "chinese_clip", "rows": ("teacher", "adapter")}
    settings = config.evaluate.model_copy(update=changes)
    metrics = evaluate.run(config.model_copy(update={"run_dir": tmp_path, "evaluate": settings}), QUIET)
    names = {f"{name}.clip" for name in ("teacher.general", "adapter.general", "adapter.culture")}
    assert names | {"teacher.culture_described.clip"} == set(metrics["details"])
    assert all(-1 <= metrics[name] <= 1 for name in names)
    assert metrics["details"]["adapter.general.clip"]["mean"]["n"] == 5


@pytest.mark.slow
def test_published_scorers_read_english_and_say_what_they_are(config: Config, tmp_path: Path) -> None:
    """Beside the images' scores; prompts without an English caption are left to the others."""
    make_clip(tmp_path / "pick")
    (tmp_path / "adapter").symlink_to(config.adapter_dir)
    lines = [{"id": f"p{n}", "captions": {"zh": "一只猫"} | ({"en": "a cat"} if n else {})} for n in range(3)]
    lines = [line | {"concept": "cat"} for line in lines[:2]] + lines[2:]
    (tmp_path / "culture.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    changes = {"judge": None, "num_inference_steps": 2, "scheduler": "dpm", "rows": ("adapter",)}
    changes |= {"prompts": {"culture": tmp_path / "culture.jsonl"}, "clip": WORLD / "chinese_clip"}
    scorers = ScorersConfig(pick_score=tmp_path / "pick")
    settings = config.evaluate.model_copy(update=changes | {"scorers": scorers})
    metrics = evaluate.run(config.model_copy(update={"run_dir": tmp_path, "evaluate": settings}), QUIET)
    detail = metrics["details"]["adapter.culture.pick_score"]
    assert detail["mean"]["n"] == 2 and metrics["details"]["adapter.culture.clip"]["mean"]["n"] == 2, "concepts"
    assert detail["settings"]["scheduler"] == "dpm" and detail["settings"]["scorer"] == "pick_score"
    assert detail["settings"]["scorer_weights"] == PickScore.load(tmp_path / "pick").digest
    scored = (tmp_path / "evaluate/adapter/culture/scores.jsonl").read_text("utf-8").splitlines()
    assert [set(json.loads(line)) for line in scored] == [{"id", "clip"}, *[{"id", "clip", "pick_score"}] * 2]
    record = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    former = ScoreSettings(config.model_copy(update={"run_dir": tmp_path, "evaluate": settings}), {})
    assert not former.hold(record["details"]["adapter.culture.clip"]["settings"]), "no such prompts any more"


def test_scores_from_before_there_were_schedulers_are_those_of_ddim(config: Config) -> None:
    sets = {"general": read_prompts(config.evaluate.prompts["general"])}
    present = ScoreSettings(config, sets).of_drawing("teacher", "general")
    former = {name: value for name, value in present.items() if name != "scheduler"}
    assert ScoreSettings(config, sets).hold(former)
    dpm = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"scheduler": "dpm"})})
    assert not ScoreSettings(dpm, sets).hold(former)


def test_every_language_of_an_adapter_is_drawn(config: Config, tmp_path: Path) -> None:
    (tmp_path / "adapter").symlink_to(config.adapter_dir)
    both = {"id": "p0", "captions": {"zh": "一只猫", "ja": "猫"}}
    (tmp_path / "general.jsonl").write_text(json.dumps(both) + "\n", encoding="utf-8")
    prompts = {**config.evaluate.prompts, "general": tmp_path / "general.jsonl"}
    settings = {"judge": None, "num_inference_steps": 1, "rows": ("adapter",), "prompts": prompts}
    changed = {
        "run_dir": tmp_path,
        "evaluate": config.evaluate.model_copy(update=settings),
        "student": config.student.model_copy(update={"language": ("zh", "ja")}),
    }
    evaluate.run(config.model_copy(update=changed), QUIET)
    drawn = {path.parent.relative_to(tmp_path / "evaluate").as_posix() for path in tmp_path.rglob("p0.png")}
    assert drawn == {"adapter/general", "adapter/culture", "adapter_ja/general"}, "culture prompts have no Japanese"


def test_another_encoder_of_the_same_width_or_another_base_model_is_refused(config: Config, tmp_path: Path) -> None:
    """What training recorded is compared by content, before anything is drawn."""
    kept = json.loads((config.adapter_dir / "config.json").read_text())
    assert kept["encoder"]["name"] == "zh" and kept["encoder"]["max_tokens"] == 10 and kept["languages"] == ["zh"]
    assert kept["base_model"]["name"] == "teacher" and kept["prediction_type"] == "epsilon"
    assert kept["base_model"]["unet"] == digest_of(config.teacher.checkpoint / "unet")
    assert kept["base_model"]["values"] == unet_values(config.teacher.checkpoint / "unet")
    other = config.student.model_copy(update={"encoder": make_native_encoder(tmp_path / "other", seed=5)})
    teacher = config.teacher.model_copy(update={"checkpoint": make_checkpoint(tmp_path / "sd15", "sd15")})
    for changed, said in (
        ({"student": other}, "another text encoder; .*zh.*other"),
        ({"teacher": teacher}, "a diffusion model of another shape"),
    ):
        with pytest.raises(CheckpointError, match=f"the adapter was trained for {said}"):
            evaluate.make_rows(config.model_copy(update=changed), torch.device("cpu"))
        with pytest.raises(CheckpointError, match=f"the adapter was trained for {said}"):
            generate.run(config.model_copy(update=changed), QUIET, ["一只猫"], tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_all_that_training_leaves_is_as_readable_as_any_new_file(config: Config, tmp_path: Path) -> None:
    """Weights and saved states too: libraries write theirs for the owner alone."""
    (tmp_path / "new").touch()
    both = (config.adapter_dir, config.training_dir)
    files = [path for folder in both for path in folder.rglob("*") if path.is_file()]
    modes = {path: path.stat().st_mode & 0o777 for path in files}
    assert any(path.suffix == ".safetensors" and path.parent != config.adapter_dir for path in modes)
    assert {path.name for path, mode in modes.items() if mode != (tmp_path / "new").stat().st_mode & 0o777} == set()


def test_the_setups_for_large_images_draw_few_at_a_time() -> None:
    sizes = [load_config(ROOT / f"configs/{name}.yaml").evaluate.batch_size for name in ("sd15", "sdxl")]
    assert sizes == [16, 4] and EvaluateConfig().batch_size > max(sizes)


def test_each_problem_is_one_line(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="no judge here"):
        scoring.load_judge(tmp_path)
    with pytest.raises(EvaluationError, match="nothing to evaluate"):
        evaluate.run(config.model_copy(update={"evaluate": EvaluateConfig()}), QUIET)
    path = tmp_path / "setup.yaml"
    path.write_text(resolved_yaml(config.model_copy(update={"run_dir": tmp_path / "new"})), encoding="utf-8")
    assert generate.main(["一只猫", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert "no adapter here" in error and error.count("\n") == 1
