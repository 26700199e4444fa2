"""``pea data pack``: its arguments."""

from __future__ import annotations

import argparse

from stages.command.arguments import at_least_one, local_path

DESCRIPTION = (
    "Pack images and captions into the tars that `pea cache` reads: a folder (with a CSV, TSV, JSONL or Parquet "
    "table, or with text files beside the images), a table or a Hugging Face dataset on disk with its images in it, or "
    "tars of img2dataset and webdataset. Images stay as they are stored. To go on after a break, run the same command."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data pack``."""
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="folder, table or tars: a path or a pattern")
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="where the tars go")
    parser.add_argument("--table", metavar="FILE", help="table of a folder of images, where it does not lie in it")
    parser.add_argument("--images", metavar="FOLDER", help="images of a table (default: the table's folder)")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="what a column is: image=file, zh=caption_zh, or text=caption with language=lang (may be repeated; "
        "default: what names and values of the columns show)",
    )
    parser.add_argument("--language", metavar="CODE", help="language of captions that do not say it")
    parser.add_argument("--no-captions", action="store_true", help="pack images that have no captions as well")
    parser.add_argument(
        "--rows-per-tar",
        type=at_least_one,
        metavar="N",
        help="rows or images to a tar (default: 1000); tars are packed into as many tars",
    )
    parser.add_argument(
        "--resize", type=at_least_one, metavar="PX", help="make larger images smaller, to this shorter side"
    )
    parser.add_argument("--verify", action="store_true", help="decode every image in full, and leave damaged ones out")
    parser.add_argument("--dry-run", action="store_true", help="say what would be packed from what, and stop")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Do it; the libraries that it needs are imported only now. Raises what ``stages.data.pack_run`` says."""
    from stages.data.pack_run import run

    return run(arguments)
