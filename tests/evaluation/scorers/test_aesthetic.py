"""LAION's aesthetic score: the head on the embedding of length 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pea.errors import CheckpointError
from pea.evaluation.scorers.aesthetic import AestheticScore
from pea.evaluation.scorers.pixels import cropped_pixels
from tests.evaluation.scorers.published_files import SIZE_PX, head_answer, head_state, images, make_clip

HEAD = "sac+logos+ava1-l14-linearMSE.pth"


def test_the_head_reads_the_embedding_of_the_image(tmp_path: Path) -> None:
    model, head, shown = make_clip(tmp_path), head_state(12), images()
    torch.save(head, tmp_path / HEAD)
    scorer = AestheticScore.load(tmp_path)
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=cropped_pixels(shown, SIZE_PX)).pooler_output
        expected = head_answer(head, seen / seen.norm(dim=-1, keepdim=True))
    np.testing.assert_allclose(scorer.score(shown, [""] * 3), expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scorer.score(shown, ["a", "b", "c"]), scorer.score(shown, [""] * 3))


@pytest.mark.slow
def test_a_head_that_is_none_is_refused(tmp_path: Path) -> None:
    make_clip(tmp_path)
    with pytest.raises(CheckpointError, match=r"the head of the aesthetic score is missing.*linearMSE.pth"):
        AestheticScore.load(tmp_path)
    shifted = {name.replace("layers.2.", "layers.3."): tensor for name, tensor in head_state(12).items()}
    torch.save(shifted, tmp_path / HEAD)  # as of the variant with ReLUs
    with pytest.raises(CheckpointError, match=r"2 missing \(layers.2.weight.*2 unknown \(layers.3.weight"):
        AestheticScore.load(tmp_path)
    torch.save(head_state(16), tmp_path / HEAD)  # of another CLIP
    with pytest.raises(CheckpointError, match="1 of another shape"):
        AestheticScore.load(tmp_path)
    torch.save(head_state(12), tmp_path / "second.pth")
    with pytest.raises(CheckpointError, match="several heads"):
        AestheticScore.load(tmp_path)
