"""Drawing images of prompts into files that say what made them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pea.evaluation.base_model import check_base_model
from pea.evaluation.drawing import Drawer, image_seed, save_image
from pea.foreign_text import words
from pea.pipeline import PEAPrompt
from pea.storage.durable import make_folder
from stages.command.console import Console
from stages.command.device import pick_device

_NUMBERED = re.compile(r"([0-9]{3,})-.*\.png")


@dataclass(frozen=True)
class Pictures:
    """What is drawn, and how."""

    adapter: str
    """As it is named in the images."""
    base: Path
    """Folder of the diffusion model."""
    steps: int
    guidance: float
    batch_size: int
    device: str
    negative_prompt: str = ""
    size_px: tuple[int, int] | None = None
    """Height and width; None: the model's own."""
    num_images: int = 1
    seed: int = 0


def draw(pea: PEAPrompt, pictures: Pictures, console: Console, prompts: Sequence[str], out: Path) -> list[Path]:
    """Draw images of each prompt into `out`; what made an image stands in its metadata. Returns their paths.

    Images that lie there already stay: the numbers go on.

    Raises:
        CheckpointError: the base model is of another shape or prediction type than the adapter's.
        ConfigError: a size that the base model cannot draw.
    """
    device = pick_device(pictures.device, "evaluate.device")
    check_base_model(pea.adapter, pictures.base)
    drawer = Drawer(pictures.base, device, num_inference_steps=pictures.steps, guidance_scale=pictures.guidance)
    drawer.check_size(pictures.size_px)
    if pea.folder is not None:
        drawer.load_changes(pea.folder)
    pea.to(device)
    say_notes(pea, [*prompts, pictures.negative_prompt])
    make_folder(out)
    paths: list[Path] = []
    first = _next_number(out)
    for group in [[prompt] for prompt in prompts] if pea.chunk else [list(prompts)]:
        both = pea.encode_both(group, [pictures.negative_prompt])
        wanted = [(row, number) for row in range(len(group)) for number in range(pictures.num_images)]
        for start in range(0, len(wanted), pictures.batch_size):
            part = wanted[start : start + pictures.batch_size]
            seeds = [image_seed(pictures.seed, str(number)) for _, number in part]
            images = drawer.draw(both[0].take([row for row, _ in part]), both[1], seeds, pictures.size_px)
            for (row, number), image in zip(part, images, strict=True):
                paths.append(out / f"{first + len(paths):03d}-{words(group[row]) or 'empty'}.png")
                save_image(paths[-1], image, description(pictures, pea, group[row], number))
                console.print(f"{paths[-1]}  {group[row]}")
    return paths


def _next_number(out: Path) -> int:
    """After those of the images that are in a folder."""
    numbers = (found for path in out.iterdir() if (found := _NUMBERED.match(path.name)))
    return 1 + max((int(found[1]) for found in numbers), default=-1)


def description(pictures: Pictures, pea: PEAPrompt, prompt: str, number: int) -> dict[str, str]:
    """What made an image, by the names of the command's options; `number`: of the images of a prompt."""
    return {
        "prompt": prompt,
        "negative_prompt": pictures.negative_prompt,
        "seed": str(pictures.seed),
        "image_of_prompt": str(number),
        "steps": str(pictures.steps),
        "guidance": str(pictures.guidance),
        "adapter": pictures.adapter,
        "adapter_weights": str(pea.adapter.config.weights),
        "base": str(pictures.base),
        "Software": "PEA-Cache",
    }


def say_notes(pea: PEAPrompt, prompts: Sequence[str]) -> None:
    """Say on stderr what of the prompts is not read."""
    for note in pea.notes(prompts):
        Console(stderr=True).print(f"pea: {note.replace('chunk=True', '--chunk')}")
