"""The frozen encoders behave as the pipelines and checkpoints they stand in for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from pea.errors import CheckpointError
from pea.models.english import EnglishEncoder
from pea.models.native import NativeEncoder
from pea.models.vae import VaeEncoder, sample_latents
from tests.tiny_models import make_checkpoint, make_native_encoder

TEXTS = ["a red ball", "", "a very long caption that does not fit into twelve tokens"]


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


def test_english_conditioning_is_the_pipelines(checkpoint: Path) -> None:
    conditioning = EnglishEncoder.from_checkpoint(checkpoint).encode(TEXTS)
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    if (checkpoint / "text_encoder_2").is_dir():
        pipe = StableDiffusionXLPipeline.from_pretrained(checkpoint)
        hidden, _, pooled, _ = pipe.encode_prompt(TEXTS, **options)
        assert conditioning.pooled_prompt_embeds is not None
        torch.testing.assert_close(conditioning.pooled_prompt_embeds, pooled)
    else:
        pipe = StableDiffusionPipeline.from_pretrained(checkpoint)
        hidden, _ = pipe.encode_prompt(TEXTS, **options)
        assert conditioning.pooled_prompt_embeds is None
    torch.testing.assert_close(conditioning.encoder_hidden_states, hidden)


def test_vae_moments_are_unscaled(checkpoint: Path) -> None:
    encoder = VaeEncoder.from_checkpoint(checkpoint)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, std = encoder.encode(pixels)
    expected = encoder.vae.encode(pixels).latent_dist
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(std, expected.std)
    noise = torch.randn_like(mean)
    torch.testing.assert_close(sample_latents(mean, std, noise, 0.5), (mean + std * noise) * 0.5)


@pytest.mark.parametrize("kind", ["chinese_clip", "alt_clip", "clip", "dual", "bert"])
def test_native_encoder_picks_the_text_tower(kind: str, tmp_path: Path) -> None:
    encoder = NativeEncoder.from_pretrained(make_native_encoder(tmp_path, kind))
    hidden, mask = encoder.encode(["一只 a", "", "a b c d e f g h i j k l m n"])
    assert hidden.shape == (3, encoder.max_tokens, 16) and encoder.width == 16
    assert mask.shape == hidden.shape[:2] and mask[2].all() and not mask[1].all()
    assert not hidden.requires_grad and hidden.isfinite().all()
    assert not torch.allclose(hidden[0], hidden[1])


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model folder") as caught:
        EnglishEncoder.from_checkpoint(tmp_path / "absent")
    assert "\n" not in str(caught.value) and "absent" in str(caught.value)


def test_an_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    with pytest.raises(CheckpointError, match="no VAE configuration") as caught:
        VaeEncoder.from_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        NativeEncoder.from_pretrained(tmp_path)


def test_a_folder_without_text_encoder_is_refused(tmp_path: Path) -> None:
    folder = make_native_encoder(tmp_path, "clip")
    from transformers import CLIPVisionConfig, CLIPVisionModel

    CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
    ).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="no text encoder"):
        NativeEncoder.from_pretrained(folder)
