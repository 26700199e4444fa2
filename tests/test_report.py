"""The report: one page that needs nothing else, from what a run folder holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data_tools import report
from pea.config import Config, EvaluateConfig
from pea.errors import EvaluationError
from stages import train_adapter
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
    page = report.run(config, QUIET).read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > len(report.COLUMNS)
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_the_page_shows_prompts_scores_and_cached_blocks(config: Config) -> None:
    page = report.run(config, QUIET).read_text("utf-8")
    assert "一只猫" in page
    assert "one animal cat" in page
    assert "a cat &lt;b&gt;" in page
    assert "50.0%" in page
    assert "mid_block" in page
    assert "0.250 to 0.750, n = 2" in page


def test_nothing_to_report_before_an_evaluation(config: Config, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="Run `pea eval` first"):
        report.run(config.model_copy(update={"run_dir": tmp_path}), QUIET)
