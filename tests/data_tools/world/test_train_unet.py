"""A teacher of noise whose encoder learns along, from a VAE of another shape: every part of it, a few steps each."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel

from data_tools.world.things.train_all import MAX_ENGLISH_TOKENS, UNET, VAE_SHAPE
from data_tools.world.things.world import THINGS
from data_tools.world.train_images import Phase, train_vae
from data_tools.world.train_latent_text import train_english_on_latents
from data_tools.world.train_text import Corpus
from data_tools.world.train_unet import TeacherRecipe, train_teacher

pytestmark = pytest.mark.slow
FEW = Corpus(THINGS, num_general=60, english_per_concept=1)
RECIPE = TeacherRecipe(
    THINGS,
    num_general=60,
    num_per_concept=1,
    prediction_type="epsilon",
    unet=UNET | {"block_out_channels": (16, 16, 16)},
    train_text=True,
    batch_size=4,
    save_every_steps=2,
)


def no_report(step, steps, loss):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    vae, english = folder / "vae", folder / "english"
    train_vae(vae, (Phase(32, 4, 2, 1e-3, 1e-6),), 1, 0, no_report, THINGS, VAE_SHAPE)
    unforetold = train_english_on_latents(
        folder / "english", folder / "vae", 120, 1, no_report, FEW, MAX_ENGLISH_TOKENS
    )
    saved = {}

    def note_what_is_saved(step, steps, loss):
        saved[step] = (folder / "sd15/step-2/text_encoder/model.safetensors").exists()

    train_teacher(folder / "sd15", vae, (english,), 3, 6, note_what_is_saved, RECIPE)
    return folder, unforetold, saved


def test_captions_foretell_the_latents(trained):
    assert trained[1] < 0.5


def test_the_pipeline_predicts_noise_in_latents_of_the_vaes_shape(trained):
    pipe = StableDiffusionPipeline.from_pretrained(trained[0] / "sd15", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.config.prediction_type == "epsilon"
    assert (pipe.unet.config.in_channels, pipe.unet.config.sample_size) == (VAE_SHAPE.latent_channels, 8)
    image = pipe("a red lion on the left on snow", num_inference_steps=2).images[0]
    assert image.size == (THINGS.image_size_px, THINGS.image_size_px)


def test_the_encoder_learns_along(trained):
    before = CLIPTextModel.from_pretrained(trained[0] / "english/text_model").state_dict()
    after = CLIPTextModel.from_pretrained(trained[0] / "sd15/text_encoder").state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_whole_pipeline_of_averages_is_there_while_the_training_goes_on(trained):
    assert trained[2] == {0: False, 1: False, 2: True}
