"""Convert an official PEA-Diffusion checkpoint into an adapter folder.

    pea convert proj_0_200000/pytorch_model.bin --out adapters/official-zh

The file is read as plain tensors; nothing in it is executed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pea.errors import CheckpointError
from pea.models.adapter import convert_official
from pea.storage.durable import new_folder
from stages.command.common import command_main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea convert`."""
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help="pytorch_model.bin of the official release")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="adapter folder to write")
    parser.add_argument("--max-tokens", type=int, default=None, help="length that captions were padded to in training")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        CheckpointError: the file is not an official checkpoint, or the folder is there already.
    """
    adapter = convert_official(arguments.checkpoint)
    adapter.register_to_config(max_tokens=arguments.max_tokens)
    if arguments.out.exists():
        raise CheckpointError("there is something here already", where=arguments.out, remedy="Choose another --out.")
    with new_folder(arguments.out) as temporary:
        adapter.save_pretrained(temporary, safe_serialization=True)
    sizes = adapter.config
    kind = "SD1.5" if sizes.pooled_dim is None else "SDXL"
    parameters = sum(parameter.numel() for parameter in adapter.parameters())
    print(f"{arguments.out}: {kind} adapter, {parameters:,} parameters, for a text encoder of width {sizes.input_dim}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
