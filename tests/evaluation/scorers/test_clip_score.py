"""Scoring by a CLIP: right captions against wrong ones, and folders that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools.world.captions import captions
from data_tools.world.scenes import CONCEPTS, culture_scenes, general_scenes
from data_tools.world.train_images import paint_all
from pea.errors import CheckpointError
from pea.evaluation.scorers.clip_score import ClipScorer

WORLD = Path(__file__).parents[3] / "data_tools/world/checkpoints"


def test_a_right_caption_scores_higher_than_a_wrong_one() -> None:
    scenes = general_scenes(24, seed=5) + culture_scenes(CONCEPTS["zh"], 8, 5)
    images, texts = paint_all(scenes), [captions(scene)["zh"] for scene in scenes]
    scorer = ClipScorer.from_pretrained(WORLD / "chinese_clip")
    right, wrong = scorer.score(images, texts), scorer.score(images, [*texts[1:], texts[0]])
    assert right.shape == (len(scenes),) and right.dtype == np.float32
    assert (right > wrong).mean() > 0.9 and right.mean() > wrong.mean() + 0.5
    np.testing.assert_allclose(scorer.score(images[:1], texts[:1])[0], right[0], rtol=1e-4)  # each row by itself


def test_folders_that_are_no_clip(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no dual encoder"):
        ClipScorer.from_pretrained(WORLD / "sdxl" / "text_encoder")
    shutil.copytree(WORLD / "chinese_clip", tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="AutoImageProcessor"):
        ClipScorer.from_pretrained(tmp_path / "clip")
