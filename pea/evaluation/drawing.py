"""Images from conditioning, through the unmodified diffusers pipeline of a checkpoint.

Every image has its own initial noise, drawn from its own seed: it does not depend on the batch that it is drawn in,
and two methods that are compared start from the same noise.
"""

from __future__ import annotations

import io
import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pea.errors import CheckpointError, ConfigError, EvaluationError
from pea.evaluation.schedulers import make_scheduler
from pea.file_names import LORA_FILE
from pea.foreign_json import json_object
from pea.models.conditioning import Conditioning
from pea.models.loading import load_part, load_tokenizer
from pea.models.lora_files import check_lora
from pea.models.noise_schedule import SCHEDULER_CONFIG, schedule_fields
from pea.models.teacher_parts import check_teacher, own_size, pooled_dim_of
from pea.models.unet import unet_config
from pea.plurals import count_of
from pea.storage.location import Location

Images = npt.NDArray[np.uint8]
_MULTIPLES_PX = 8
"""Of sides that the pipelines of SD and SDXL take, whatever the VAE."""
_GRID_COLUMNS = 16
_GRID_WIDTH_PX = 4096
"""Of a sheet: 16 images in a row are at most 256 px wide each."""


class Drawer:
    """A checkpoint's pipeline without its text encoders, and how its images are drawn."""

    def __init__(
        self,
        checkpoint: Path,
        device: torch.device | str,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        scheduler: str = "ddim",
        unet: UNet2DConditionModel | None = None,
    ) -> None:
        """Args as named; `scheduler`: of `SCHEDULERS`; `unet`: draw with this one, not the checkpoint's.

        Raises:
            CheckpointError: the folder is missing or is no pipeline.
        """
        self.where = checkpoint
        self.num_inference_steps, self.guidance_scale, self.scheduler = num_inference_steps, guidance_scale, scheduler
        self.pipe = load_pipeline(checkpoint, without_text=True, unet=unet).to(device)
        if unet is not None:
            self.pipe.vae.to(unet.dtype)
        self._loras: set[str] = set()
        for model in (self.pipe.unet, self.pipe.vae):  # tensors of another order are copied by a CPU's kernels
            model.to(memory_format=torch.channels_last)

    def check_size(self, size_px: tuple[int, int] | None) -> None:
        """Refuse a height and width that are no whole number of latents, or that the pipelines of diffusers refuse.

        Raises:
            ConfigError: they are not.
        """
        step = math.lcm(self.pipe.vae_scale_factor, _MULTIPLES_PX)
        if size_px and any(side % step or not side for side in size_px):
            height, width = size_px
            raise ConfigError("a size that cannot be drawn", expected=f"multiples of {step}", got=f"{width}x{height}")

    def load_changes(self, folder: Path) -> None:
        """Take in what training changed in the UNet, where an adapter's folder holds that."""
        if (folder / LORA_FILE).is_file():
            self.load_lora("changes", folder / LORA_FILE)

    def use_changes(self, *, wanted: bool) -> None:
        """Draw with the changed UNet, or with the checkpoint's."""
        self.use_loras(*(["changes"] if wanted else []))

    def load_lora(self, name: str, file: Path) -> None:
        """Take in a LoRA of the UNet under a name.

        Raises:
            CheckpointError: it is none, or of another UNet.
        """
        check_lora(file)
        options = {"weight_name": file.name, "adapter_name": name, "local_files_only": True, "use_safetensors": True}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of a second one, which is wanted
                self.pipe.load_lora_weights(str(file.parent), **options)
        except Exception as error:  # of many kinds: what the file holds is put to the library unchecked
            got = " ".join(str(error).split())[:200]
            raise CheckpointError("cannot load this LoRA", where=file, got=got) from error
        self._loras.add(name)

    def use_loras(self, *names: str) -> None:
        """Draw with these LoRAs, of those that were loaded, and with no others."""
        wanted = [name for name in names if name in self._loras]
        if wanted:
            self.pipe.enable_lora()
            self.pipe.set_adapters(wanted)
        elif self._loras:
            self.pipe.disable_lora()

    def draw(
        self,
        conditioning: Conditioning,
        empty: Conditioning,
        seeds: Sequence[int],
        size_px: tuple[int, int] | None = None,
    ) -> Images:
        """One image for each row of the conditioning: uint8 `[B, H, W, 3]`. `empty`: of the empty caption, one row.

        Threads may draw at the same time: each call has a schedule of its own.

        Raises:
            EvaluationError: an image has no finite numbers; as a picture it would be black.
        """
        pipe, unet = copy(self.pipe), self.pipe.unet
        pipe.scheduler = make_scheduler(self.scheduler, self.pipe.scheduler.config, self.num_inference_steps)
        height, width = (side // self.pipe.vae_scale_factor for side in size_px) if size_px else own_size(unet.config)
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]  # a scheduler that adds noise goes on with it
        latents = torch.stack(
            [torch.randn(unet.config.in_channels, height, width, generator=generator) for generator in noise]
        )
        with torch.inference_mode():
            images = pipe(
                **prompt_arguments(conditioning, empty),
                latents=latents.to(unet.device, unet.dtype),
                generator=noise,
                height=height * self.pipe.vae_scale_factor,
                width=width * self.pipe.vae_scale_factor,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                output_type="np",
            ).images
        if not np.isfinite(images).all():
            raise EvaluationError(
                "an image came out that is no finite numbers",
                where=self.where,
                got=f"guidance {self.guidance_scale}, {count_of(self.num_inference_steps, 'step')}",
                remedy="Check the weights of the UNet, of a LoRA and of the adapter; half precision may be too narrow.",
            )
        pixels: Images = (images * 255).round().clip(0, 255).astype(np.uint8)
        return pixels


def save_image(path: Path, image: npt.NDArray[np.uint8], description: Mapping[str, str]) -> None:
    """One image uint8 `[H, W, 3]` as a PNG that says what made it, in text chunks of UTF-8 (iTXt)."""
    texts = PngInfo()
    for name, text in description.items():
        texts.add_itxt(name, text.encode(errors="replace").decode())  # a command line may hold half a character
    save_picture(path, Image.fromarray(image), pnginfo=texts)


def save_picture(path: Path, image: Image.Image, **options: Any) -> None:
    """Write a PNG; a reader, or a crash, meets the former file or this one and nothing between."""
    data = io.BytesIO()
    image.save(data, "PNG", **options)
    Location.parse(path).write_bytes(data.getvalue())


def save_grid(path: Path, images: Images) -> None:
    """Images uint8 `[B, H, W, 3]` side by side, `_GRID_COLUMNS` in a row, as one PNG; large ones as thumbnails."""
    count, height, width, _ = images.shape
    columns = min(_GRID_COLUMNS, count)
    shown_width = min(width, _GRID_WIDTH_PX // columns)
    shown_height = max(1, height * shown_width // width)
    grid = Image.new("RGB", (columns * shown_width, -(-count // columns) * shown_height), "white")
    for index, image in enumerate(images):
        shown = Image.fromarray(image).resize((shown_width, shown_height))
        grid.paste(shown, (index % columns * shown_width, index // columns * shown_height))
    save_picture(path, grid)


def prompt_arguments(conditioning: Conditioning, empty: Conditioning) -> dict[str, Tensor]:
    """A pipeline's arguments from `[B, ...]` conditioning and that of the empty captions: B rows, or one for all."""
    rows = len(conditioning.encoder_hidden_states) // len(empty.encoder_hidden_states)
    arguments = {
        "prompt_embeds": conditioning.encoder_hidden_states,
        "negative_prompt_embeds": empty.encoder_hidden_states.repeat(rows, 1, 1),
    }
    if conditioning.pooled_prompt_embeds is not None and empty.pooled_prompt_embeds is not None:
        arguments["pooled_prompt_embeds"] = conditioning.pooled_prompt_embeds
        arguments["negative_pooled_prompt_embeds"] = empty.pooled_prompt_embeds.repeat(rows, 1)
    return arguments


def image_seed(seed: int, name: str) -> int:
    """The seed of one image, from the run's seed and the prompt's id."""
    return zlib.crc32(f"{seed}/{name}".encode())


def load_pipeline(checkpoint: Path, *, without_text: bool = False, unet: UNet2DConditionModel | None = None) -> Any:
    """The text-to-image pipeline of a checkpoint, float32, silent; with `unet` in place of its own, where given.

    Which one that is, its UNet says; `model_index.json` may name another use of the same models, or parts that are not
    here. Its VAE decodes one image at a time: a batch of large images does not fit a GPU's memory.

    Raises:
        CheckpointError: the folder is missing, is no pipeline's, or is of a kind that is not supported.
    """
    check_teacher(checkpoint)
    is_sdxl = pooled_dim_of(unet_config(checkpoint)) is not None
    texts: dict[str, Any] = {"": CLIPTextModel} | ({"_2": CLIPTextModelWithProjection} if is_sdxl else {})
    parts: dict[str, Any] = {"scheduler": _own_scheduler(checkpoint / "scheduler")}
    for suffix, kind in texts.items():
        model, tokenizer = f"text_encoder{suffix}", f"tokenizer{suffix}"
        parts[model] = None if without_text else load_part(kind, checkpoint / model, torch.float32)
        parts[tokenizer] = None if without_text else load_tokenizer(CLIPTokenizer, checkpoint / tokenizer)
    parts["unet"] = load_part(UNet2DConditionModel, checkpoint / "unet", torch.float32) if unet is None else unet
    parts["vae"] = load_part(AutoencoderKL, checkpoint / "vae", torch.float32)
    if is_sdxl:
        pipe: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = StableDiffusionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.enable_slicing()
    return pipe


def _own_scheduler(folder: Path) -> Any:
    """The scheduler of a checkpoint, of the class that its own file names; a plain one where that needs a package.

    A drawer takes no more than its settings.
    """
    name = json_object((folder / SCHEDULER_CONFIG).read_bytes())["_class_name"]
    try:
        return load_part(getattr(diffusers, name), folder, None)
    except CheckpointError:
        plain = load_part(DDPMScheduler, folder, None)
        return DDPMScheduler.from_config(plain.config, **schedule_fields(folder))
