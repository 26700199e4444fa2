"""Bring a published text encoder into a folder that every other command reads.

    pea import clip_cn_vit-h-14.pt --tokenizer bert-base-chinese --out weights/chinese-clip
    pea import koclip/koclip-base@9ebb41d67a5c9c48432b6722d19789ea054a14c8 --out weights/koclip

Knows cn_clip's .pt, open_clip (XLM-R, RoBERTa, its own CLIPs), M-CLIP, rinna's Japanese CLIP, ruCLIP, KoCLIP and
CLIP-Italian (flax), T5 and its kin, and transformers' models in .bin. The files are read as plain tensors; nothing in
them is executed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pea.plurals import count_of
from pea.storage.hub import local_folder
from stages.command.arguments import local_path
from stages.command.common import command_main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea import`."""
    parser.add_argument(
        "source", type=local_path, metavar="SOURCE", help="file of weights, folder, or org/name@revision"
    )
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument(
        "--tokenizer",
        type=local_path,
        metavar="FOLDER",
        help="folder of its tokenizer, where none lies beside the weights",
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments.

    Raises:
        CheckpointError: the layout is unknown, something is missing, or what came out cannot be used.
    """
    from pea.models.imports.importing import import_encoder

    tokenizer = None if arguments.tokenizer is None else local_folder(arguments.tokenizer)
    layout, encoder = import_encoder(local_folder(arguments.source, every_form=True), arguments.out, tokenizer)
    print(
        f"{arguments.out}: {layout.name}; hidden states of width {encoder.width}, "
        f"{count_of(encoder.max_tokens, 'token')}"
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
