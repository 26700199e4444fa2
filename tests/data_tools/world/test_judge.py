"""The judge takes images of any world's size."""

import pytest
import torch

from data_tools.world.judge import Judge


@pytest.mark.parametrize("size_px", [16, 32, 64])
def test_one_value_for_each_attribute_of_an_image_of_the_worlds_size(size_px):
    judge = Judge(
        width=8, attributes={"shape": ["ball", "star", "moon"], "colour": ["red", "blue"]}, image_size_px=size_px
    )
    logits = judge(torch.zeros(2, 3, size_px, size_px))
    assert {name: values.shape for name, values in logits.items()} == {"shape": (2, 3), "colour": (2, 2)}
