"""Draw images for prompts in the adapter's language.

pea generate --config configs/demo.yaml "一只猫" "雪地上的红球" --out pictures
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console

from pea.config import Config, load_config, resolved_yaml
from pea.drawing import Drawer, image_seed
from pea.pipeline import PEAPrompt
from stages.common import command_main
from stages.evaluate import pick_device


def run(
    config: Config, console: Console, prompts: Sequence[str], out: Path, *, num_images: int = 1, seed: int = 0
) -> list[Path]:
    """Draw `num_images` images of each prompt into `out`; returns their paths.

    Raises:
        CheckpointError: a model folder is missing, or there is no trained adapter yet.
    """
    evaluate = config.evaluate
    device = pick_device(evaluate.device)
    pea = PEAPrompt.from_pretrained(config.adapter_dir, config.student.encoder).to(device)
    drawer = Drawer(
        config.teacher.checkpoint,
        device,
        num_inference_steps=evaluate.num_inference_steps,
        guidance_scale=evaluate.guidance_scale,
    )
    drawer.load_changes(config.adapter_dir)
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(prompt, number) for prompt in prompts for number in range(num_images)]
    empty, paths = pea.encode([""]), []
    for start in range(0, len(wanted), evaluate.batch_size):
        part = wanted[start : start + evaluate.batch_size]
        seeds = [image_seed(seed, str(number)) for _, number in part]
        images = drawer.draw(pea.encode([prompt for prompt, _ in part]), empty, seeds)
        for index, ((prompt, _), image) in enumerate(zip(part, images, strict=True), start):
            paths.append(out / f"{index:03d}-{file_name(prompt)}.png")
            Image.fromarray(image).save(paths[-1])
            console.print(f"{paths[-1]}  {prompt}", highlight=False)
    return paths


def file_name(prompt: str) -> str:
    """A prompt as part of a file name: letters and digits of any script, at most 40."""
    return re.sub(r"\W+", "-", prompt).strip("-")[:40] or "empty"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea generate`."""
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the setup's YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="replace a setting")
    parser.add_argument(
        "--out", type=Path, default=Path("generated"), help="folder for the images (default: generated)"
    )
    parser.add_argument("--num-images", type=int, default=1, help="images of each prompt (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial noise (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments."""
    config = load_config(arguments.config, arguments.set)
    if arguments.dry_run:
        print(resolved_yaml(config), end="")
        return 0
    run(
        config,
        Console(),
        arguments.prompts,
        arguments.out,
        num_images=arguments.num_images,
        seed=arguments.seed,
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
