"""The frozen UNet: hooks, shapes, targets, and no gradients on its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pea.errors import CheckpointError, ConfigError
from pea.models.conditioning import Conditioning
from pea.models.unet import Teacher, unet_config
from pea.models.unet_shapes import block_shapes
from tests.tiny_models import make_checkpoint

ALL_BLOCKS = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


def _inputs(
    teacher: Teacher, hw: tuple[int, int] = (8, 8)
) -> tuple[torch.Tensor, torch.Tensor, Conditioning, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, teacher.unet.config.cross_attention_dim, generator=generator, requires_grad=True)
    pooled = torch.randn(3, 12, generator=generator) if teacher.unet.config.addition_embed_type else None
    latents = torch.randn(3, 4, *hw, generator=generator)
    return latents, torch.tensor([1, 500, 999]), Conditioning(hidden, pooled), torch.ones(3, 6, dtype=torch.int64)


def test_every_block_is_captured_and_only_text_gets_gradients(checkpoint: Path) -> None:
    teacher = Teacher.from_checkpoint(checkpoint)
    latents, timesteps, conditioning, time_ids = _inputs(teacher)
    output = teacher.forward(latents, timesteps, conditioning, time_ids)
    assert tuple(output.features) == ALL_BLOCKS == teacher.blocks
    sum(feature.square().mean() for feature in output.features.values()).backward()
    assert conditioning.encoder_hidden_states.grad is not None
    assert all(parameter.grad is None for parameter in teacher.unet.parameters())


def test_block_shapes_need_no_weights(checkpoint: Path) -> None:
    teacher = Teacher.from_checkpoint(checkpoint)
    features = teacher.forward(*_inputs(teacher, (8, 12))).features
    expected = {name: tuple(feature.shape[1:]) for name, feature in features.items()}
    assert block_shapes(unet_config(checkpoint), (8, 12)) == expected


def test_channels_last_gives_the_same_answer(checkpoint: Path) -> None:
    plain = Teacher.from_checkpoint(checkpoint)
    fast = Teacher.from_checkpoint(checkpoint, channels_last=True)
    one, other = plain.forward(*_inputs(plain)), fast.forward(*_inputs(fast))
    torch.testing.assert_close(one.noise_pred, other.noise_pred)


def test_a_subset_of_blocks_and_an_unknown_one(checkpoint: Path) -> None:
    assert Teacher.from_checkpoint(checkpoint, ["mid_block"]).blocks == ("mid_block",)
    with pytest.raises(ConfigError, match=r"expected down_blocks\.0, .*got up_blocks\.9"):
        Teacher.from_checkpoint(checkpoint, ["up_blocks.9"])


def test_targets_follow_the_prediction_type(tmp_path: Path) -> None:
    latents, noise, timesteps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    epsilon = Teacher.from_checkpoint(make_checkpoint(tmp_path / "e", "sd15"))
    assert epsilon.target(latents, noise, timesteps) is noise
    velocity = Teacher.from_checkpoint(make_checkpoint(tmp_path / "v", "sd15", "v_prediction"))
    alpha = velocity.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    expected = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    torch.testing.assert_close(velocity.target(latents, noise, timesteps), expected)
    torch.testing.assert_close(velocity.snr(timesteps), (alpha / (1 - alpha)).flatten())
    with pytest.raises(CheckpointError, match="unsupported prediction type"):
        Teacher.from_checkpoint(make_checkpoint(tmp_path / "s", "sd15", "sample"))
