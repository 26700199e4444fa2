"""Draw images for prompts in the adapter's language.

    pea generate --adapter org/adapter --base stabilityai/stable-diffusion-xl-base-1.0 "一只猫" --steps 30 --size 1024
    pea generate --config configs/demo.yaml "一只猫" "雪地上的红球" evaluate.guidance_scale=4 --out pictures

With --config, a word `name=value` is a setting; every other word is a prompt, as is one that begins with a space.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.command.arguments import add_config_option, at_least_one, local_path, zero_or_above
from stages.command.common import command_main

if TYPE_CHECKING:  # slow to import, and --help does without
    from pea.config import Config
    from pea.pipeline import PEAPrompt
    from stages.command.console import Console

_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)\s*[=:]")
MAX_SIDE_PX = 4096
"""Four times what the largest model here was trained at; what is beyond fits no memory, and takes days on a CPU."""
_MOST_IMAGES = 10_000
_DEFAULTS = {"steps": 25, "guidance": 5.0, "batch_size": 1, "device": "auto"}
"""Without a configuration."""


def run(
    config: Config,
    console: Console,
    prompts: Sequence[str],
    out: Path,
    *,
    chunk: bool = False,
    **options: object,
) -> list[Path]:
    """Draw images of each prompt into `out` with the adapter of a setup; returns their paths.

    `options`: of `Pictures`, in place of the configuration's.

    Raises:
        CheckpointError: a model folder is missing, there is no trained adapter yet, or they do not belong together.
    """
    from pea.pipeline import PEAPrompt
    from stages.command.pictures import Pictures, draw

    evaluate = config.evaluate
    pea = PEAPrompt.from_pretrained(config.adapter_dir, config.student.encoders, chunk=chunk)
    given = {"steps": evaluate.num_inference_steps, "guidance": evaluate.guidance_scale} | {
        "batch_size": evaluate.batch_size,
        "device": evaluate.device,
    }
    pictures = Pictures(str(config.adapter_dir), config.teacher.folder, **(given | options))  # type: ignore[arg-type]
    return draw(pea, pictures, console, prompts, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea generate`."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="PROMPT | section.key=value",
        help="what to draw; with --config, name=value replaces a setting (put a space before a prompt that looks so)",
    )
    add_config_option(parser, required=False)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="replace a setting")
    parser.set_defaults(overrides=[])  # settings that follow options are collected there
    add_model_options(parser)
    parser.add_argument("--negative-prompt", metavar="TEXT", default="", help="what not to draw (default: nothing)")
    parser.add_argument("--steps", type=at_least_one, help="denoising steps (default: 25, or the setting)")
    parser.add_argument("--guidance", type=zero_or_above, help="guidance scale; 0: none (default: 5, or the setting)")
    parser.add_argument("--size", type=_size, metavar="PX | WxH", help="width and height (default: the model's own)")
    parser.add_argument("--num-images", type=_num_images, default=1, help="images of each prompt (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial noise (default: 0)")
    parser.add_argument("--chunk", action="store_true", help="read prompts that are too long in pieces")
    parser.add_argument(
        "--out", type=local_path, default=Path("generated"), help="folder for the images (default: generated)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adapter, base model and encoder, where there is no configuration."""
    place = "FOLDER|URL|org/name"
    parser.add_argument("--adapter", metavar=place, help="the adapter, in place of --config")
    parser.add_argument("--base", metavar=place, help="diffusion model (default: what the adapter names)")
    parser.add_argument(
        "--encoder",
        action="append",
        metavar=place,
        help="text encoder; twice for two (default: what the adapter names)",
    )


def _num_images(text: str) -> int:
    if (number := at_least_one(text)) > _MOST_IMAGES:
        raise argparse.ArgumentTypeError(f"{text!r} is too many: at most {_MOST_IMAGES:,} of a prompt at once")
    return number


def _size(text: str) -> tuple[int, int]:
    """Height and width of `1024` or `1024x768` (width first)."""
    found = re.fullmatch(r"([0-9]{1,5})(?:[x×]([0-9]{1,5}))?", text)
    if not found or not (math.prod(int(side) for side in found.groups() if side)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: 1024, or 1024x768 for width and height")
    width, height = int(found[1]), int(found[2] or found[1])
    if max(width, height) > MAX_SIDE_PX:
        raise argparse.ArgumentTypeError(f"{text!r} is too large: at most {MAX_SIDE_PX} px to a side")
    return height, width


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Prompts, and what is or looks like a setting: a misspelt one is no prompt."""
    settings = [word for word in words if _looks_like_setting(word)]
    return [word.strip() for word in words if word not in settings], settings


def _looks_like_setting(word: str) -> bool:
    """A dotted name with a value, one that nearly is a setting's, or a setting's without a value."""
    from difflib import get_close_matches

    from pea.config import valid_names

    names = valid_names()
    found = _SETTING.match(word)
    if found is None:
        return "." in word and word in names
    if "." in found[1].strip("."):
        return True
    return bool(get_close_matches(found[1], {name.rpartition(".")[2] for name in names}, cutoff=0.75))


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        ConfigError: the configuration is wrong, or there is nothing but settings.
    """
    from pea.errors import ConfigError

    prompts, settings = split_words(arguments.words)
    settings += [*arguments.set, *arguments.overrides]
    _check_together(arguments, settings)
    if not prompts and not arguments.dry_run:
        raise ConfigError("nothing to draw", expected="a prompt beside the settings", got=" ".join(settings))
    names = ("steps", "guidance", "negative_prompt", "num_images", "seed")
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    options["size_px"] = arguments.size
    if arguments.config:
        return _with_config(arguments, prompts, settings, options)
    if arguments.dry_run:
        raise ConfigError("nothing to resolve without a configuration", expected="--dry-run with --config")
    from stages.command.console import Console
    from stages.command.pictures import Pictures, draw  # slow to import, and a wrong configuration is said without

    pea, base = load_models(arguments, chunk=arguments.chunk)
    pictures = Pictures(arguments.adapter, base, **(_DEFAULTS | options))  # type: ignore[arg-type]
    draw(pea, pictures, Console(), prompts, arguments.out)
    return 0


def _with_config(
    arguments: argparse.Namespace, prompts: Sequence[str], settings: Sequence[str], options: dict[str, object]
) -> int:
    from pea.config import load_config, resolved_yaml
    from stages.command.console import Console
    from stages.command.run_folder import working

    config = load_config(arguments.config, settings)
    if arguments.dry_run:
        print(resolved_yaml(config), end="")
        return 0
    with working(config, "pea generate", publishes=False) as here:
        run(here, Console(), prompts, arguments.out, chunk=arguments.chunk, **options)
    return 0


def _check_together(arguments: argparse.Namespace, settings: Sequence[str]) -> None:
    from pea.errors import ConfigError

    if bool(arguments.config) == bool(arguments.adapter):
        got = "both" if arguments.config else "neither"
        raise ConfigError("which adapter?", expected="--config FILE, or --adapter FOLDER (and --base)", got=got)
    if arguments.config and (arguments.base or arguments.encoder):
        raise ConfigError("the configuration says which", got="--base or --encoder beside --config")
    if arguments.adapter and settings:
        raise ConfigError(
            "a setting without --config",
            got=" ".join(settings),
            remedy="Use --steps, --guidance and so on; a prompt that looks so gets a space before it.",
        )


def load_models(arguments: argparse.Namespace, *, chunk: bool) -> tuple[PEAPrompt, Path]:
    """The adapter with its encoder, and the folder of its base model.

    Raises:
        CheckpointError: one is missing, or they do not belong together.
    """
    from pea.pipeline import PEAPrompt
    from pea.pipeline.base_model import recorded_base
    from pea.storage.hub import local_folder, with_revision

    pea = PEAPrompt.from_pretrained(arguments.adapter, arguments.encoder, chunk=chunk)
    base = arguments.base or recorded_base(pea.adapter.config, arguments.adapter)
    return pea, local_folder(with_revision(base))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
