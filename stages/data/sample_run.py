"""What ``pea data sample`` does."""

from __future__ import annotations

import argparse
import zlib

from data_tools.corpus.tar_items import TarSample
from data_tools.corpus.tar_to_tar import PartRecord, rewrite_tar
from data_tools.tables import say
from pea.corpus.damaged_tars import FINISHED_IS_KEPT, DamagedTars
from pea.corpus.places import expand_tars
from pea.corpus.samples import sample_id
from pea.errors import CorpusError

_ALL = 2**32


def run(arguments: argparse.Namespace) -> int:
    """Write the chosen samples of every tar.

    Raises:
        CorpusError: a tar is damaged, or no sample is chosen.
    """
    total, damaged = PartRecord(), DamagedTars()
    for tar in expand_tars(arguments.tars):

        def decide(sample: TarSample, _record: PartRecord, name: str = tar.name) -> str | None:
            return None if is_chosen(sample_id(name, sample.key), arguments.share) else "not chosen"

        with damaged.noted():
            record, _ = rewrite_tar(tar, arguments.out, {"share": arguments.share}, decide)
            total.add(record)
    unusable = total.seen - total.kept - total.dropped["not chosen"]
    say(f"{total.kept} of {total.seen} samples in {arguments.out}" + (f", {unusable} unusable" if unusable else ""))
    damaged.refuse(FINISHED_IS_KEPT)
    if not total.kept:
        remedy = "Choose a larger --share."
        raise CorpusError("no sample was chosen", where=" ".join(arguments.tars), got=total.seen, remedy=remedy)
    return 0


def is_chosen(sample: str, share: float) -> bool:
    """Whether a sample belongs to a share: by its id alone, and to every larger share too."""
    return zlib.crc32(f"sample\0{sample}".encode()) < round(min(share, 1.0) * _ALL)
