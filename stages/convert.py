"""Convert an official PEA-Diffusion checkpoint into an adapter folder.

    pea convert proj_0_200000/pytorch_model.bin --out adapters/official-zh --encoder weights/chinese-clip

The file is read as plain tensors; nothing in it is executed. It names neither text encoder nor base model: what is
given here (--encoder, --base, --language) is recorded in the adapter, and other encoders are refused from then on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pea.errors import CheckpointError
from pea.storage.durable import new_folder
from pea.storage.hub import local_folder
from stages.command.arguments import at_least_one, local_path
from stages.command.common import command_main

if TYPE_CHECKING:
    from pea.models.adapter import PEA


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea convert`."""
    parser.add_argument("checkpoint", type=local_path, metavar="FILE", help="pytorch_model.bin of the official release")
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="adapter folder to write")
    parser.add_argument("--max-tokens", type=at_least_one, default=None, help="length that captions had in training")
    parser.add_argument("--encoder", nargs="+", metavar="FOLDER", help="text encoder, or two, that it was trained for")
    parser.add_argument("--base", metavar="NAME|FOLDER", help="diffusion model that it was trained for")
    parser.add_argument("--language", action="append", metavar="CODE", help="language of its prompts")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        CheckpointError: the file is not an official checkpoint, the encoder or base model is not its own, or the folder
            is there already.
    """
    from pea.models.adapter import convert_official

    if arguments.out.exists():
        raise CheckpointError("there is something here already", where=arguments.out, remedy="Choose another --out.")
    adapter = convert_official(arguments.checkpoint)
    adapter.register_to_config(**records(adapter, arguments))
    with new_folder(arguments.out) as temporary:
        adapter.save_pretrained(temporary)
    sizes = adapter.config
    kind = "SD1.5" if sizes.pooled_dim is None else "SDXL"
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    print(f"{arguments.out}: {kind} adapter, {parameters:,} parameters, for a text encoder of width {sizes.input_dim}")
    if adapter.config.encoder is None:
        print("it does not say which text encoder it is for: convert it with --encoder to have others refused")
    return 0


def records(adapter: PEA, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the adapter's training, for its configuration.

    Raises:
        CheckpointError: the encoder or the base model does not fit the adapter.
    """
    from pea.models.encoders.pair import load_encoder
    from pea.models.noise_schedule import schedule_fields
    from pea.models.tensor_files import digest_of
    from pea.models.unet import unet_config
    from pea.pipeline import PEAPrompt

    kept: dict[str, Any] = {"max_tokens": arguments.max_tokens, "languages": arguments.language}
    if arguments.encoder is not None:
        reading = {"max_tokens": arguments.max_tokens}
        encoder = load_encoder([local_folder(each) for each in arguments.encoder], reading=reading)
        PEAPrompt(adapter, encoder)
        kept |= {"max_tokens": encoder.max_tokens, "encoder": encoder.record}
    if arguments.base is not None:
        kept["base_model"] = {"name": Path(arguments.base).name, "unet": None}
        if (folder := Path(arguments.base)).is_dir():
            adapter.check_base(unet_config(folder), folder)
            kept["base_model"]["unet"] = digest_of(folder / "unet")
            kept["prediction_type"] = schedule_fields(folder / "scheduler")["prediction_type"]
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
