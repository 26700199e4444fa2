"""``pea data buckets``."""

from __future__ import annotations

import argparse
from collections import Counter

from data_tools.corpus.bucket_choice import Size, propose_buckets, shares
from data_tools.corpus.filter_rules import image_size
from data_tools.corpus.tar_items import tar_samples
from data_tools.tables import say, table
from pea.corpus.places import expand_tars
from pea.errors import CorpusError
from stages.command.arguments import at_least_one

DESCRIPTION = (
    "Propose the setting cache.buckets from the sizes of the images: how many fall into each bucket, how much of them "
    "is cut off, and how many are made larger."
)
_BAR = 40


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
    """Look at the sizes, and propose buckets.

    Raises:
        CorpusError: a tar is damaged, or there is no image.
    """
    sizes = _sizes(arguments)
    if not sizes:
        raise CorpusError("no image that can be read", where=" ".join(arguments.tars))
    buckets = propose_buckets(sizes, arguments.side**2, arguments.multiple, arguments.most)
    if not buckets:
        raise CorpusError(
            "no bucket has such a side",
            where="--multiple",
            got=arguments.multiple,
            expected=f"at most {arguments.side}",
        )
    found = shares(sizes, buckets)
    most = max(each.num_images for each in found)
    rows = [
        (
            f"{each.bucket[0]}x{each.bucket[1]}",
            each.num_images,
            f"{each.lost:.1%}",
            each.enlarged,
            "#" * round(_BAR * each.num_images / most),
        )
        for each in found
    ]
    say(table(("height x width", "images", "cut off", "made larger", ""), rows))
    total = sum(each.num_images for each in found)
    lost = sum(each.lost * each.num_images for each in found) / total
    square = shares(sizes, [(arguments.side, arguments.side)])[0].lost
    say(f"{total} images; {lost:.1%} of them is cut off, {square:.1%} with the square alone")
    say("cache:\n  buckets: [" + ", ".join(f"[{height}, {width}]" for height, width in buckets) + "]")
    return 0


def _sizes(arguments: argparse.Namespace) -> Counter[Size]:
    sizes = Counter[Size]()
    for tar in expand_tars(arguments.tars):
        for sample in tar_samples(tar):
            size = None if sample.problem else image_size(sample.image)
            if size is not None:
                sizes[size] += 1
            if sizes.total() >= arguments.samples:
                return sizes
    return sizes
