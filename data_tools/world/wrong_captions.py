"""Give a share of a corpus' samples each other's captions in one language: a corpus of doubtful quality.

    python -m data_tools.world.wrong_captions --corpus 'runs/demo/corpora/parallel/*.tar' --language zh --out wrong-zh

It writes tables, which `corpora.parallel.caption_tables` reads beside the tars: the cache, its images and its
English stay as they are.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Sequence

from data_tools.corpus.captioned import ALL_CAPTIONS, Captioned, units_of
from pea.errors import CorpusError, PeaError
from pea.storage import Location

SHARE = 0.2


def exchanged(captions: Sequence[str], share: float, seed: int) -> dict[int, str]:
    """Place -> the caption of another place, for this share of all, chosen by the seed; each is given away once."""
    chosen = random.Random(seed).sample(range(len(captions)), round(share * len(captions)))
    return {place: captions[other] for place, other in zip(chosen, [*chosen[1:], *chosen[:1]], strict=True)}


def write_tables(places: Sequence[str], language: str, share: float, seed: int, folder: Location) -> tuple[int, int]:
    """Write a table for each tar with a wrong caption; returns how many samples have one, of how many.

    Raises:
        CorpusError: a tar is missing or damaged, or too few samples have a caption in the language.
    """
    rows = [row for unit in units_of(places, 1) for row in unit.rows(ALL_CAPTIONS)]
    samples = [row for row in rows if isinstance(row, Captioned) and row.tar and language in row.captions]
    wrong = exchanged([sample.captions[language] for sample in samples], share, seed)
    if len(wrong) < 2:
        raise CorpusError(
            f"too few samples have a caption in {language} to exchange",
            where=", ".join(places),
            expected=f"two in a share of {share:g}",
            got=len(wrong),
        )
    lines = defaultdict[str, list[str]](list)
    for place, caption in sorted(wrong.items()):
        sample = samples[place]
        record = {"tar": sample.tar, "key": sample.key, "captions": {language: caption}}
        lines[sample.tar].append(json.dumps(record, ensure_ascii=False) + "\n")
    for tar, records in lines.items():
        (folder / f"{tar}.jsonl").write_text("".join(records))
    return len(wrong), len(samples)


def main(argv: list[str] | None = None) -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Give samples of a corpus each other's captions.")
    parser.add_argument("--corpus", nargs="+", required=True, metavar="TARS", help="tars: paths or patterns")
    parser.add_argument("--language", required=True, help="whose captions are exchanged")
    parser.add_argument("--share", type=float, default=SHARE, help=f"of the samples (default: {SHARE})")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder that is written")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.share <= 1:
        parser.error(f"--share is between 0 and 1, not {arguments.share:g}")
    try:
        count, of = write_tables(
            arguments.corpus, arguments.language, arguments.share, arguments.seed, Location.parse(arguments.out)
        )
    except PeaError as error:
        print(f"pea: error: {error}", file=sys.stderr)
        return 2
    print(f"{count} of {of} samples have another's caption in {arguments.language}: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
