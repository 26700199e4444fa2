"""Try adapters in a browser: a prompt by the adapter, beside the teacher's image of the same in English.

    pea app --adapter runs/sdxl-zh/adapter --base stabilityai/stable-diffusion-xl-base-1.0

Several --adapter are chosen by their language on the page, several --base (of one shape) as its pipeline. The page is
served to this machine alone (127.0.0.1).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.command.arguments import at_least_one, device_name, zero_or_above
from stages.command.common import command_main

if TYPE_CHECKING:
    from pea.pipeline import PEAPrompt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea app`."""
    place = "FOLDER|org/name"
    parser.add_argument("--adapter", action="append", required=True, metavar=place, help="an adapter (may be repeated)")
    parser.add_argument(
        "--base",
        action="append",
        metavar=place,
        help="diffusion model (may be repeated; default: what the first adapter names)",
    )
    parser.add_argument(
        "--encoder",
        action="append",
        metavar=place,
        help="text encoder of the adapters; twice for two (default: what they name)",
    )
    parser.add_argument("--steps", type=at_least_one, default=25, help="denoising steps to begin with (default: 25)")
    parser.add_argument("--guidance", type=zero_or_above, default=5.0, help="guidance scale to begin with (default: 5)")
    parser.add_argument("--port", type=_port, default=7860, help="port on 127.0.0.1 (default: 7860)")
    parser.add_argument(
        "--device", type=device_name, default="auto", help="auto, cpu, cuda or cuda:INDEX (default: auto)"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments, until interrupted.

    Raises:
        CheckpointError: a model is missing, or they do not belong together.
    """
    import gradio  # noqa: F401 - before models are loaded for it

    from data_tools.app.page import make_page, serve
    from data_tools.app.studio import Studio
    from pea.pipeline import PEAPrompt
    from pea.pipeline.base_model import recorded_base
    from pea.storage.hub import local_folder, model_name, with_revision
    from stages.command.device import pick_device

    device = pick_device(arguments.device, "--device")
    prompts = [PEAPrompt.from_pretrained(each, arguments.encoder) for each in arguments.adapter]
    named = arguments.base or [recorded_base(prompts[0].adapter.config, arguments.adapter[0])]
    folders = [local_folder(with_revision(each)) for each in named]
    bases = {
        f"{model_name(each)} ({number})" if number else model_name(each): each for number, each in enumerate(folders)
    }
    studio = Studio(by_language(prompts, arguments.adapter), bases, device)
    page = make_page(studio, steps=arguments.steps, guidance=arguments.guidance)
    print(f"http://127.0.0.1:{arguments.port}  (Ctrl-C ends it)", flush=True)
    serve(page, arguments.port)
    return 0


def by_language(prompts: Sequence[PEAPrompt], places: Sequence[str]) -> dict[str, PEAPrompt]:
    """Language -> adapter; where two have the same, or one says none, its folder's name is beside it."""
    found: dict[str, PEAPrompt] = {}
    for prompt, place in zip(prompts, places, strict=True):
        for language in prompt.adapter.config.languages or ["?"]:
            name = language if language not in found and language != "?" else f"{language} ({Path(place).name})"
            number = 2
            while name in found:
                name, number = f"{language} ({Path(place).name}, {number})", number + 1
            found[name] = prompt
    return found


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 1 to 65535")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
