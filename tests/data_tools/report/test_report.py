"""The report: one page that needs nothing else, from what a run folder holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.report import page as report
from pea.config import Config, EvaluateConfig
from pea.errors import EvaluationError
from stages import train_adapter
from stages.command.console import Console
from tests.tiny_setup import make_setup

QUIET = Console(quiet=True)
_ACCURACY = {"accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 2}
_SCORE = {"mean": _ACCURACY, "attributes": {"shape": _ACCURACY}}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run that is trained and has the images and scores of an evaluation, faked where only their look matters."""
    folder = tmp_path_factory.mktemp("report")
    prompts = folder / "general.jsonl"
    captions = {"en": "a cat <b>", "zh": "一只猫", "translation_zh": "one animal cat"}
    prompts.write_text(json.dumps({"id": "p0", "captions": captions, "attributes": {"shape": "cat"}}), encoding="utf-8")
    config = make_setup(folder).model_copy(update={"evaluate": EvaluateConfig(prompts={"general": prompts})})
    train_adapter.run(config, QUIET)
    for row in report.COLUMNS:
        images = config.run_dir / "evaluate" / row / "general"
        images.mkdir(parents=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(images / "p0.png")
    metrics = {"adapter.general": 0.5, "details": {f"{row}.general": _SCORE for row in report.ROWS}}
    (config.run_dir / "metrics.json").write_text(json.dumps(metrics))
    return config


def test_the_page_is_self_contained(config: Config) -> None:
    page = report.write_report(config).read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > len(report.COLUMNS)
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_page_shows_prompts_scores_and_cached_blocks(config: Config) -> None:
    page = report.write_report(config).read_text("utf-8")
    assert "一只猫" in page
    assert "one animal cat" in page
    assert "a cat &lt;b&gt;" in page
    assert "50.0%" in page
    assert "mid_block" in page
    assert "0.250 to 0.750, n = 2" in page


def _report(config: Config, folder: Path, drawn: dict[str, list[str]], details: dict[str, object]) -> str:
    """The page of a run folder with nothing but these images, row -> prompt ids, and scores; two prompts in the set."""
    prompts = [{"id": f"p{number}", "captions": {"zh": f"一只猫{number}"}} for number in range(2)]
    (folder / "general.jsonl").write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    for row, ids in drawn.items():
        images = folder / "evaluate" / row / "general"
        images.mkdir(parents=True)
        for name in (*ids, "grid"):
            Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(images / f"{name}.png")
    (folder / "metrics.json").write_text(json.dumps({"details": details}))
    settings = EvaluateConfig(prompts={"general": folder / "general.jsonl"})
    changed = {"run_dir": folder, "cache_root": config.run_dir / "cache", "evaluate": settings}
    return report.write_report(config.model_copy(update=changed)).read_text("utf-8")


def test_only_what_was_drawn_is_shown(config: Config, tmp_path: Path) -> None:
    page = _report(config, tmp_path, {"teacher": ["p0"], "no_adapter": ["p0", "p1"]}, {})
    assert "一只猫0" in page and "一只猫1" not in page, "max_prompts leaves prompts out"
    assert page.count('class="sample"') == 1
    assert "<th>teacher, English</th>" in page and "<th>native encoder, trained adapter</th>" not in page
    assert "word for word" not in page and "means:" not in page, "there are no such captions"


def test_a_row_that_has_fewer_prompts_has_empty_cells(config: Config, tmp_path: Path) -> None:
    page = _report(config, tmp_path, {"teacher": ["p0"], "adapter": ["p0", "p1"]}, {})
    assert "一只猫1" in page and page.count('class="sample"') == 3 and page.count("<td></td>") == 1


def test_without_images_there_is_no_table_of_them(config: Config, tmp_path: Path) -> None:
    page = _report(config, tmp_path, {}, {})
    assert "Prompts: general" not in page and "How often" not in page


def test_clip_scores_are_shown(config: Config, tmp_path: Path) -> None:
    details = {"adapter.general": _SCORE, "adapter.general.clip": {"mean": _ACCURACY | {"accuracy": -0.125}}}
    page = _report(config, tmp_path, {"adapter": ["p0"]}, details)
    assert "<td>CLIP score</td>" in page and "<b>-0.125</b>" in page and "width:0.0%" in page
    assert "<td>accuracy</td>" in page and "<b>0.500</b>" in page
    alone = {"teacher.general_described.clip": {"mean": _ACCURACY}}
    (tmp_path / "alone").mkdir()
    page = _report(config, tmp_path / "alone", {"adapter": ["p0"]}, alone)
    assert "CLIP score: the cosine" in page and "<td>accuracy</td>" not in page and "judge" not in page


def test_a_converted_adapter_has_neither_log_nor_cache(config: Config, tmp_path: Path) -> None:
    assert "<h2>Training</h2>" in report.write_report(config).read_text("utf-8")
    (tmp_path / "metrics.json").write_text("{}")
    changed = {"run_dir": tmp_path, "evaluate": EvaluateConfig()}
    page = report.write_report(config.model_copy(update=changed)).read_text("utf-8")
    assert "<h2>Training</h2>" not in page and "What the cache holds" not in page


def test_nothing_to_report_before_an_evaluation(config: Config, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="Run `pea eval` first"):
        report.write_report(config.model_copy(update={"run_dir": tmp_path}))
