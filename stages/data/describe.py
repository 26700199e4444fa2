"""``pea data describe``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_tools.corpus.captioned import Unit
from data_tools.tables import say
from pea.corpus.places import Tar
from pea.corpus.rules import ReadingRules
from pea.errors import CorpusError
from stages.command.arguments import at_least_one, device_name
from stages.data.common import add_spread_arguments, caption_fields, each_part
from stages.data.part_work import Made, PartWork

if TYPE_CHECKING:
    from PIL import Image

    from data_tools.corpus.description import Describer

DESCRIBED = "described_en"
DESCRIPTION = (
    "Describe the images of tars in English with a local captioning model (BLIP or Florence-2 in the layout of "
    "transformers): a table for each tar, which corpora.described.tables names. Descriptions are called "
    f"{DESCRIBED}, say which model made them, and never count as captions that a person wrote. Descriptions that you "
    f"have already are brought beside the tars by `pea data captions` with --map {DESCRIBED}=COLUMN. To go on after a "
    "break, run the same command."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data describe``."""
    parser.add_argument("corpus", nargs="+", metavar="TARS", help="paths, patterns and URLs of tars")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder or URL of the tables that are made")
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder of the model, or org/name@revision")
    parser.add_argument("--prompt", metavar="TEXT", help="what the model is asked (default: as is usual for its kind)")
    parser.add_argument(
        "--caption",
        action="append",
        default=[],
        metavar="LANGUAGE=FIELD",
        help="where captions are (may be repeated; default: all of the field captions); images with one in English are "
        "passed over",
    )
    parser.add_argument("--again", action="store_true", help="also images that have an English caption")
    parser.add_argument("--beams", type=at_least_one, default=3, metavar="N", help="width of the search (default: 3)")
    parser.add_argument(
        "--max-tokens", type=at_least_one, default=64, metavar="N", help="longest description (default: 64)"
    )
    parser.add_argument("--batch-size", type=at_least_one, default=8, metavar="N", help="images at once (default: 8)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the model (default: float32)"
    )
    parser.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:INDEX (default: auto)",
    )
    parser.add_argument(
        "--format", choices=("jsonl", "parquet"), default="jsonl", help="kind of table (default: jsonl)"
    )
    add_spread_arguments(parser)
    parser.set_defaults(rows_per_part=1)


def begin(arguments: argparse.Namespace) -> PartWork:
    """Load the model.

    Raises:
        CheckpointError: it cannot be used.
    """
    fields = caption_fields(arguments)
    from data_tools.corpus.description import Describer, DescriptionSettings  # slow to import
    from stages.command.device import pick_device

    options = DescriptionSettings(
        arguments.prompt, arguments.beams, arguments.max_tokens, arguments.batch_size, arguments.dtype
    )
    describer = Describer(arguments.model, options, pick_device(arguments.device, "--device"))
    settings = {"command": "describe", **describer.record, "again": arguments.again, "captions": fields}
    return PartWork(settings, lambda unit: describe_unit(unit, fields, describer, again=arguments.again))


def run_arguments(arguments: argparse.Namespace) -> int:
    """Describe the images of every tar that is not finished, and say what became of them."""
    each_part(arguments, begin, _report)
    return 0


def _report(total: Counter[str]) -> None:
    say(
        f"{total['samples']} images: {total['described']} described, {total['present']} with an English caption "
        f"already, {total['empty']} to which the model said nothing; {total['unusable']} samples unusable"
    )


def describe_unit(unit: Unit, fields: dict[str, str], describer: Describer, *, again: bool) -> Made:
    """The rows of a tar, and its counts: every image is described, passed over, or counted with what is wrong.

    Raises:
        CorpusError: the unit is no tar, or the tar is damaged.
    """
    from pea.corpus.samples import Sample, read_tar  # with Pillow, which --help does without

    tar = unit.where
    if not isinstance(tar, Tar):
        raise CorpusError("a table has no images", where=unit.name, expected="tars")
    counts, keys = Counter[str](), list[str]()

    def images() -> Iterator[Image.Image]:
        for sample in read_tar(tar, fields, rules=ReadingRules()):
            if not isinstance(sample, Sample):
                counts.update(("unusable", f"unusable {sample.reason}"))
                continue
            counts["samples"] += 1
            if "en" in sample.captions and not again:
                counts["present"] += 1
                continue
            keys.append(sample.key)
            yield sample.image

    rows = []
    for place, text in enumerate(describer.describe(images())):
        counts["described" if text else "empty"] += 1
        if text:
            rows.append(_row(tar.name, keys[place], text, describer.provenance))
    return rows, counts


def _row(tar: str, key: str, text: str, provenance: str) -> dict[str, Any]:
    return {"tar": tar, "key": key, "captions": {DESCRIBED: text}, "provenance": {DESCRIBED: provenance}}
