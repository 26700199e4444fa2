"""Images from conditioning: the unmodified pipeline, one image independent of its batch, bounded memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from PIL import Image

from pea.collect.overlap import map_in_threads
from pea.config import Config
from pea.evaluation.drawing import Drawer, load_pipeline, save_grid
from pea.models.conditioning import Conditioning
from pea.models.english import EnglishEncoder
from stages.command.console import Console
from tests.pictures import size_of

QUIET = Console(quiet=True)


@pytest.fixture
def config(tiny_sdxl: Config) -> Config:
    return tiny_sdxl


@pytest.mark.slow
def test_an_image_does_not_depend_on_its_batch(config: Config) -> None:
    english = EnglishEncoder.from_checkpoint(config.teacher.checkpoint)
    drawer = Drawer(config.teacher.checkpoint, "cpu", num_inference_steps=2, guidance_scale=3.0)
    together = drawer.draw(english.encode(["a cat", "a dog", "a cat"]), english.encode([""]), [1, 2, 1])
    alone = drawer.draw(english.encode(["a dog"]), english.encode([""]), [2])
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert np.array_equal(together[0], together[2]) and not np.array_equal(together[0], together[1])
    wide = drawer.draw(english.encode(["a dog"]), english.encode([""]), [2], size_px=(16, 24))
    assert wide.shape == (1, 16, 24, 3)


@pytest.mark.slow
def test_the_pipeline_is_the_unmodified_one(config: Config) -> None:
    """What the drawer gives is what a user gets from diffusers with the same prompt and noise."""
    drawer = Drawer(config.teacher.checkpoint, "cpu", num_inference_steps=2, guidance_scale=3.0)
    english = EnglishEncoder.from_checkpoint(config.teacher.checkpoint)
    ours = drawer.draw(Conditioning(*english.encode(["a cat"])), english.encode([""]), [7])
    pipe = StableDiffusionXLPipeline.from_pretrained(config.teacher.checkpoint)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    options = {"height": 16, "width": 16, "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
    theirs = pipe("a cat", negative_prompt="", latents=latents, **options).images
    assert np.abs(ours[0] / 255 - theirs[0]).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("without_text", [True, False])
def test_a_checkpoint_of_fp16_weights_alone_is_drawn_from(config: Config, tmp_path: Path, without_text: bool) -> None:
    half = load_pipeline(config.teacher.checkpoint)
    for model in (half.unet, half.vae, half.text_encoder, half.text_encoder_2):
        model.half()
    half.save_pretrained(tmp_path, variant="fp16")
    assert not list(tmp_path.glob("*/*model.safetensors"))
    pipe = load_pipeline(tmp_path, without_text=without_text)
    models = [pipe.unet, pipe.vae] + ([] if without_text else [pipe.text_encoder, pipe.text_encoder_2])
    assert {model.dtype for model in models} == {torch.float32}
    plain = load_pipeline(config.teacher.checkpoint).unet.state_dict()
    assert all(torch.equal(each, plain[name].half().float()) for name, each in pipe.unet.state_dict().items())


def _say_nothing(folder: Path) -> None:
    (folder / "model_index.json").write_text("{}")


def _other_use(folder: Path) -> None:
    _say(folder, "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")


def _code_of_its_own(folder: Path) -> None:
    _say(folder, "model_index.json", _class_name=["pipeline", "MyPipeline"], unet=["my_unet", "MyUNet"])
    (folder / "pipeline.py").write_text("raise SystemExit(7)")
    (folder / "unet/my_unet.py").write_text("raise SystemExit(7)")


def _parts_not_here(folder: Path) -> None:
    _say(folder, "model_index.json", image_encoder=["transformers", "CLIPVisionModelWithProjection"])


def _needs_a_package(folder: Path) -> None:
    _say(folder, "scheduler/scheduler_config.json", _class_name="DPMSolverSDEScheduler")


def _say(folder: Path, name: str, **changes: object) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))


INDICES: dict[str, Callable[[Path], None]] = {
    "another use": _other_use,
    "code of its own": _code_of_its_own,
    "parts that are not here": _parts_not_here,
    "empty": _say_nothing,
    "none": lambda folder: (folder / "model_index.json").unlink(),
    "a scheduler of another package": _needs_a_package,
}


@pytest.mark.parametrize("name", INDICES)
def test_the_unet_says_which_pipeline_it_is(config: Config, name: str, tmp_path: Path) -> None:
    """What else a folder is for, or lacks, is no matter to the one who draws texts."""
    drawn = []
    for folder in (config.teacher.checkpoint, tmp_path / "teacher"):
        if folder != config.teacher.checkpoint:
            shutil.copytree(config.teacher.checkpoint, folder)
            INDICES[name](folder)
        drawer = Drawer(folder, "cpu", num_inference_steps=1, guidance_scale=3.0)
        text = Conditioning(torch.ones(1, 12, 32), torch.ones(1, 12))
        drawn.append(drawer.draw(text, text, [3]))
    assert np.array_equal(*drawn)


def test_the_vae_decodes_one_image_at_a_time(config: Config) -> None:
    drawer = Drawer(config.teacher.checkpoint, "cpu", num_inference_steps=1, guidance_scale=3.0)
    sizes: list[int] = []
    drawer.pipe.vae.decoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    encode = EnglishEncoder.from_checkpoint(config.teacher.checkpoint).encode
    drawer.draw(encode(["a cat", "a dog", "a cat"]), encode([""]), [1, 2, 3])
    assert sizes == [1, 1, 1]


@pytest.mark.parametrize(
    ("count", "height", "width", "expected"),
    [(17, 600, 512, (16 * 256, 2 * 300)), (2, 600, 512, (2 * 512, 600)), (16, 2, 4000, (16 * 256, 1))],
)
def test_a_sheet_is_of_reasonable_width(
    tmp_path: Path, count: int, height: int, width: int, expected: tuple[int, int]
) -> None:
    images = np.zeros((count, height, width, 3), np.uint8)
    images[0] = 200
    save_grid(tmp_path / "grid.png", images)
    assert size_of(tmp_path / "grid.png") == expected
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.getpixel((0, 0)) == (200, 200, 200) and sheet.getpixel((expected[0] - 1, 0)) == (0, 0, 0)


@pytest.mark.slow
def test_threads_that_draw_at_the_same_time_change_nothing(config: Config) -> None:
    checkpoint = config.teacher.checkpoint
    drawer = Drawer(checkpoint, "cpu", num_inference_steps=6, guidance_scale=3.0)
    encode = EnglishEncoder.from_checkpoint(checkpoint).encode
    batches = [(encode([text] * 2), [seed, seed + 1]) for seed, text in enumerate(["a cat", "a red dog", "two houses"])]
    empty = encode([""])
    alone = [drawer.draw(conditioning, empty, seeds) for conditioning, seeds in batches]
    together = list(map_in_threads(lambda batch: drawer.draw(batch[0], empty, batch[1]), batches, 3))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1  # rounding
    assert len({images.tobytes() for images in alone}) == 3
