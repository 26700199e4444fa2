"""Convert an official PEA-Diffusion checkpoint, or what a trainer left of an adapter, into an adapter's folder.

    pea convert proj_0_200000/pytorch_model.bin --out adapters/official-zh --encoder weights/chinese-clip

Reads plain files (.bin, .pt, .safetensors), with the prefixes of DDP (`module.`) and Lightning (`state_dict`), and
DeepSpeed's folders, as plain tensors; nothing in them is executed. They name neither text encoder nor base model: what
is given here (--encoder, --base, --language) is recorded in the adapter, and other encoders are refused from then on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.command.arguments import at_least_one, local_path
from stages.command.common import command_main

if TYPE_CHECKING:  # slow to import, and --help does without
    from pea.models.adapter import PEA


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea convert`."""
    parser.add_argument(
        "checkpoint", type=local_path, metavar="FILE", help="pytorch_model.bin of the official release, or a trainer's"
    )
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="adapter folder to write")
    parser.add_argument("--max-tokens", type=at_least_one, default=None, help="length that captions had in training")
    parser.add_argument(
        "--encoder",
        action="append",
        metavar="FOLDER|org/name",
        help="text encoder that it was trained for; twice for two",
    )
    parser.add_argument("--base", metavar="FOLDER|org/name", help="diffusion model that it was trained for")
    parser.add_argument("--language", action="append", metavar="CODE", help="language of its prompts")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        CheckpointError: the file is no adapter, the encoder or base model is not its own, or the folder is there.
    """
    from pea.errors import CheckpointError
    from pea.models.adapter import convert_official
    from pea.models.config_fields import ADAPTER, check_fields
    from pea.pipeline.publishing import write_folder
    from pea.storage.durable import new_folder

    if arguments.out.exists():
        raise CheckpointError("there is something here already", where=arguments.out, remedy="Choose another --out.")
    adapter = convert_official(arguments.checkpoint)
    adapter.register_to_config(**records(adapter, arguments))
    check_fields(adapter.config, ADAPTER, arguments.out)
    with new_folder(arguments.out) as temporary:
        made = f"Converted from `{arguments.checkpoint.name}` by `pea convert`."
        write_folder(adapter, temporary, None, place=arguments.out, base=arguments.base, made=made)
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
    from pea.models.encoders.places import record_with_places
    from pea.pipeline import PEAPrompt
    from pea.storage.hub import local_folder, with_revision

    kept: dict[str, Any] = {"max_tokens": arguments.max_tokens, "languages": arguments.language}
    if arguments.encoder is not None:
        places = [with_revision(each) for each in arguments.encoder]
        encoder = load_encoder([local_folder(place) for place in places], reading={"max_tokens": arguments.max_tokens})
        PEAPrompt(adapter, encoder)
        kept |= {"max_tokens": encoder.max_tokens, "encoder": record_with_places(encoder.record, places)}
    return kept if arguments.base is None else kept | _base_record(adapter, arguments.base)


def _base_record(adapter: PEA, base: str) -> dict[str, Any]:
    """Name and digest of the diffusion model; of one of the hub, which need not be fetched, the name alone."""
    from pea.models.noise_schedule import schedule_fields
    from pea.models.teacher_parts import check_level
    from pea.models.tensor_files import digest_of
    from pea.models.unet import unet_config
    from pea.models.unet_values import unet_values
    from pea.storage.hub import is_hub_id, with_revision

    place, folder = with_revision(base), Path(base)
    if is_hub_id(place):
        return {"base_model": {"name": str(place), "unet": None}}
    check_level(folder)
    adapter.check_base(unet_config(folder), folder)
    prediction_type = schedule_fields(folder / "scheduler")["prediction_type"]
    unet = folder / "unet"
    record = {"name": folder.name, "unet": digest_of(unet), "values": unet_values(unet)}
    return {"base_model": record, "prediction_type": prediction_type}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
