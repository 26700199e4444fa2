"""ImageReward from its published layout, against its forward pass spelt out by the published names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pea.errors import CheckpointError
from pea.evaluation.scorers.image_reward import ImageReward
from pea.evaluation.scorers.pixels import cropped_pixels
from tests.evaluation.scorers.published_files import (
    SIZE_PX,
    TEXTS,
    bert_tokenizer,
    image_reward_answer,
    image_reward_state,
    images,
    write_image_reward,
)


def test_rewards_are_those_of_the_published_forward_pass(tmp_path: Path) -> None:
    state, shown = image_reward_state(), images(width=30)
    scorer = ImageReward.load(write_image_reward(tmp_path, state))
    tokens = bert_tokenizer()(TEXTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    expected = image_reward_answer(state, cropped_pixels(shown, SIZE_PX), tokens["input_ids"], tokens["attention_mask"])
    scores = scorer.score(shown, TEXTS)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert len(set(scores.tolist())) == 3
    assert (np.abs(scorer.score(shown, TEXTS[::-1]) - scores)[[0, 2]] > 1e-3).all(), "the caption counts"
    assert scorer.digest == ImageReward.load(tmp_path / "ImageReward.pt").digest


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"blip.text_encoder.encoder.layer.1.crossattention.self.key.weight": None}, "1 missing .*crossattention"),
        ({"blip.text_decoder.bias": torch.zeros(2)}, r"1 unknown \(blip.text_decoder.bias\)"),
        ({"mlp.layers.7.bias": torch.zeros(3)}, r"1 of another shape \(head.layers.7.bias\)"),
        ({"blip.visual_encoder.pos_embed": None}, "not an ImageReward.*pos"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, change: dict[str, torch.Tensor | None], expected: str) -> None:
    state = {name: tensor for name, tensor in (image_reward_state() | change).items() if tensor is not None}
    write_image_reward(tmp_path, state)
    with pytest.raises(CheckpointError, match=expected) as caught:
        ImageReward.load(tmp_path)
    assert "ImageReward.pt" in str(caught.value) and "\n" not in str(caught.value)


def test_what_lies_beside_it_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such file or folder"):
        ImageReward.load(tmp_path / "nowhere")
    write_image_reward(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"no tokenizer beside the weights.*bert-base-uncased"):
        ImageReward.load(tmp_path)
    (tmp_path / "med_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"med_config.json beside them"):
        ImageReward.load(tmp_path)
