"""``pea data buckets``: its arguments."""

from __future__ import annotations

import argparse

from stages.command.arguments import at_least_one

DESCRIPTION = (
    "Propose the setting cache.buckets from the sizes of the images: how many fall into each bucket, how much of them "
    "is cut off, and how many are made larger."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data buckets``."""
    parser.add_argument("tars", nargs="+", metavar="TARS", help="tars: paths, patterns, URLs")
    parser.add_argument(
        "--side",
        type=at_least_one,
        default=1024,
        metavar="PX",
        help="side of the square of which buckets have the area: 1024 for SDXL, 512 for SD1.5 (default: 1024)",
    )
    parser.add_argument(
        "--multiple", type=at_least_one, default=64, metavar="PX", help="what sides are multiples of (default: 64)"
    )
    parser.add_argument("--most", type=at_least_one, default=8, metavar="N", help="most buckets (default: 8)")
    parser.add_argument(
        "--samples", type=at_least_one, default=100_000, metavar="N", help="images to look at (default: 100000)"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Do it; the libraries that it needs are imported only now. Raises what ``stages.data.buckets_run`` says."""
    from stages.data.buckets_run import run

    return run(arguments)
