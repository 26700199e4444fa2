"""``pea data translate``."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from data_tools.corpus.captioned import Captioned, Unit, Unusable
from data_tools.tables import say
from pea.errors import ConfigError
from stages.command.arguments import at_least_one, device_name
from stages.data.common import add_input_arguments, caption_fields, each_part
from stages.data.part_work import Made, PartWork

if TYPE_CHECKING:
    from data_tools.corpus.translation import Translator

DESCRIPTION = (
    "Translate captions with a local model (OPUS-MT, NLLB-200 or M2M100 in the layout of transformers) into a table "
    "beside the corpus. Each translation says which model made it, and never counts as what a person wrote. To go on "
    "after a break, run the same command; several machines may share a corpus by naming different tars and one --out."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data translate``."""
    add_input_arguments(parser)
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder of the model, or org/name@revision")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="LANGUAGE[=CODE]",
        help="language of the captions, and the model's code of it where that is another, as en=eng_Latn",
    )
    parser.add_argument(
        "--to", dest="target", required=True, metavar="LANGUAGE[=CODE]", help="language to translate to, as zh=zho_Hans"
    )
    parser.add_argument("--again", action="store_true", help="also where there is a caption in that language already")
    parser.add_argument("--beams", type=at_least_one, default=4, metavar="N", help="width of the search (default: 4)")
    parser.add_argument(
        "--max-tokens", type=at_least_one, default=128, metavar="N", help="longest translation (default: 128)"
    )
    parser.add_argument("--batch-size", type=at_least_one, default=32, metavar="N", help="texts at once (default: 32)")
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


def begin(arguments: argparse.Namespace) -> PartWork:
    """Load the model.

    Raises:
        ConfigError, CheckpointError: languages or model cannot be used.
    """
    (source, source_code), (target, target_code) = _sides(arguments)
    fields = caption_fields(arguments)
    from data_tools.corpus.translation import Side, TranslationSettings, Translator  # slow to import
    from stages.command.device import pick_device

    options = TranslationSettings(arguments.beams, arguments.max_tokens, arguments.batch_size, arguments.dtype)
    sides = Side(source, source_code), Side(target, target_code)
    translator = Translator(arguments.model, *sides, options, pick_device(arguments.device, "--device"))
    settings = {"command": "translate", **translator.record, "again": arguments.again, "captions": fields}

    def make(unit: Unit) -> Made:
        return translate_unit(unit, fields, translator, source, target, again=arguments.again)

    return PartWork(settings, make)


def run_arguments(arguments: argparse.Namespace) -> int:
    """Translate every unit that is not finished, and say how many captions of which kind there are."""
    each_part(arguments, begin, lambda total: _report(arguments, total))
    return 0


def _report(arguments: argparse.Namespace, total: Counter[str]) -> None:
    (source, _), (target, _) = _sides(arguments)
    say(
        f"{total['samples']} samples: {total['translated']} translated ({total['cut']} of them cut to what the model "
        f"reads), {total['present']} with a caption in {target} already, {total['no source']} without one in "
        f"{source}, {total['empty']} to which the model said nothing; {total['unusable']} unusable"
    )


def _sides(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Language and the model's code of it (empty: the same), of what is read and of what is written.

    Raises:
        ConfigError: one is no language, or both are the same.
    """
    sides = []
    for option, text in (("--from", arguments.source), ("--to", arguments.target)):
        language, equals, code = text.partition("=")
        if not language or (equals and not code):
            raise ConfigError("not a language", where=option, expected="LANGUAGE or LANGUAGE=CODE", got=text)
        sides.append((language, code))
    if sides[0][0] == sides[1][0]:
        raise ConfigError("nothing to translate", where="--to", got=f"from {sides[0][0]} to {sides[1][0]}")
    return sides


def translate_unit(
    unit: Unit, fields: dict[str, str], translator: Translator, source: str, target: str, *, again: bool
) -> Made:
    """The rows of a unit, and its counts: every sample is translated, or is counted with what kept it from that."""
    counts, wanted = Counter[str](), list[Captioned]()
    for sample in unit.rows(fields):
        if isinstance(sample, Unusable):
            counts.update(("unusable", f"unusable {sample.reason}"))
            continue
        present, readable = target in sample.captions, source in sample.captions
        kind = "present" if present and not again else "wanted" if readable else "no source"
        counts.update(("samples", kind))
        if kind == "wanted":
            wanted.append(sample)
    del counts["wanted"]
    answers = translator.translate([sample.captions[source] for sample in wanted])
    rows = []
    for sample, answer in zip(wanted, answers, strict=True):
        counts.update(["translated" if answer.text else "empty", *(["cut"] if answer.text and answer.was_cut else [])])
        if answer.text:
            rows.append(_row(sample, target, answer.text, translator.provenance))
    return rows, counts


def _row(sample: Captioned, target: str, text: str, provenance: str) -> dict[str, Any]:
    """The translation alone; of a text without an image, its other captions too, as they lie nowhere else."""
    own = {} if sample.tar else sample.captions
    origins = {} if sample.tar else sample.provenance
    captions = {**own, target: text}
    return {**sample.names, "captions": captions, "provenance": {**origins, target: provenance}}
