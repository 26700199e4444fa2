"""What ``pea data buckets`` does."""

from __future__ import annotations

import argparse
from collections import Counter

from data_tools.corpus.bucket_choice import Size, propose_buckets, shares
from data_tools.corpus.filter_rules import image_size
from data_tools.corpus.tar_items import tar_samples
from data_tools.tables import say, table
from pea.corpus.damaged_tars import DamagedTars
from pea.corpus.places import expand_tars
from pea.errors import CorpusError
from pea.plurals import count_of

_BAR = 40


def run(arguments: argparse.Namespace) -> int:
    """Look at the sizes, and propose buckets.

    Raises:
        CorpusError: a tar is damaged, or there is no image.
    """
    damaged = DamagedTars()
    sizes, num_unusable = _sizes(arguments, damaged)
    if not sizes:
        damaged.refuse()
        raise CorpusError(
            "no image that can be read", where=" ".join(arguments.tars), got=count_of(num_unusable, "sample")
        )
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
    say(f"{count_of(total, 'image')}; {lost:.1%} of them is cut off, {square:.1%} with the square alone")
    if num_unusable:
        say(f"no image of which the size can be read: {count_of(num_unusable, 'sample')}; `pea data check` names them")
    say("cache:\n  buckets: [" + ", ".join(f"[{height}, {width}]" for height, width in buckets) + "]")
    damaged.refuse("What was read before the damage is counted above.")
    return 0


def _sizes(arguments: argparse.Namespace, damaged: DamagedTars) -> tuple[Counter[Size], int]:
    """How often there is each size, and the number of samples without one."""
    sizes, num_unusable = Counter[Size](), 0
    for tar in expand_tars(arguments.tars):
        with damaged.noted():
            for sample in tar_samples(tar):
                size = None if sample.problem else image_size(sample.image)
                if size is None:
                    num_unusable += 1
                else:
                    sizes[size] += 1
                if sizes.total() >= arguments.samples:
                    return sizes, num_unusable
    return sizes, num_unusable
