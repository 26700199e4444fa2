"""Draw images for prompts in the adapter's language.

    pea generate --config configs/demo.yaml "一只猫" "雪地上的红球" evaluate.guidance_scale=4 --out pictures

A word `name=value` is a setting where the configuration has one of that name; every other word is a prompt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pea.config import Config, load_config, resolved_yaml, valid_names
from pea.errors import ConfigError
from pea.foreign_text import words
from stages.command.arguments import add_config_option, at_least_one, local_path
from stages.command.common import command_main
from stages.command.console import Console
from stages.command.run_folder import working


def run(
    config: Config, console: Console, prompts: Sequence[str], out: Path, *, num_images: int = 1, seed: int = 0
) -> list[Path]:
    """Draw `num_images` images of each prompt into `out`; returns their paths.

    Raises:
        CheckpointError: a model folder is missing, there is no trained adapter yet, or they do not belong together.
    """
    from PIL import Image

    from pea.evaluation.drawing import Drawer, image_seed, save_picture
    from pea.models.unet import unet_config
    from pea.pipeline import PEAPrompt
    from stages.evaluate import pick_device

    evaluate = config.evaluate
    device = pick_device(evaluate.device)
    pea = PEAPrompt.from_pretrained(config.adapter_dir, config.student.encoders).to(device)
    pea.adapter.check_base(unet_config(config.teacher.folder), config.teacher.folder)
    drawer = Drawer(
        config.teacher.folder,
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
            paths.append(out / f"{index:03d}-{words(prompt) or 'empty'}.png")
            save_picture(paths[-1], Image.fromarray(image))
            console.print(f"{paths[-1]}  {prompt}")
    return paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea generate`."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="PROMPT | section.key=value",
        help="what to draw; a word that begins with the name of a setting and = replaces that setting",
    )
    add_config_option(parser)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="replace a setting")
    parser.set_defaults(overrides=[])  # settings that follow options are collected there
    parser.add_argument(
        "--out", type=local_path, default=Path("generated"), help="folder for the images (default: generated)"
    )
    parser.add_argument("--num-images", type=at_least_one, default=1, help="images of each prompt (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial noise (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Prompts, and settings: words `name=value` with the name of a setting."""
    names = set(valid_names())
    settings = [word for word in words if "=" in word and word.partition("=")[0] in names]
    return [word for word in words if word not in settings], settings


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        ConfigError: the configuration is wrong, or there is nothing but settings.
    """
    prompts, settings = split_words(arguments.words)
    config = load_config(arguments.config, [*settings, *arguments.set, *arguments.overrides])
    if arguments.dry_run:
        print(resolved_yaml(config), end="")
        return 0
    if not prompts:
        raise ConfigError("nothing to draw", expected="a prompt beside the settings", got=" ".join(settings))
    with working(config, "pea generate", publishes=False) as here:
        run(here, Console(), prompts, arguments.out, num_images=arguments.num_images, seed=arguments.seed)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
