"""``pea data clean``."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from data_tools.corpus.captioned import Captioned, Unit, Unusable
from data_tools.corpus.clean import CHINESE, RULES, Cleaner
from data_tools.tables import say, table
from pea.errors import CorpusError
from pea.plurals import count_of
from stages.data.common import add_input_arguments, caption_fields, each_part
from stages.data.part_work import PartWork

DESCRIPTION = (
    "Write clean captions into a table beside the corpus: Unicode in its normal form (NFKC), without control "
    "characters, HTML entities, web addresses and superfluous spaces, and Chinese in one form where that is asked for. "
    "Nothing that exists is changed: where a caption differs, the table holds the original too. To go on after a "
    "break, run the same command."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data clean``."""
    add_input_arguments(parser)
    parser.add_argument("--chinese", choices=("simplified", "traditional"), help="bring Chinese captions to this form")
    parser.add_argument(
        "--leave", action="append", default=[], choices=RULES, help="a rule that is not applied (may be repeated)"
    )


def begin(arguments: argparse.Namespace) -> PartWork:
    """Choose the rules."""
    rules = [rule for rule in RULES if rule not in arguments.leave]
    cleaner, fields = Cleaner(rules, arguments.chinese), caption_fields(arguments)
    settings = {"command": "clean", "rules": rules, "chinese": arguments.chinese, "captions": fields}
    return PartWork(settings, lambda unit: clean_unit(unit, fields, cleaner))


def run_arguments(arguments: argparse.Namespace) -> int:
    """Clean every unit, and say what was changed."""
    each_part(arguments, begin, lambda total: _report(arguments, total))
    return 0


def _report(arguments: argparse.Namespace, total: Counter[str]) -> None:
    places = caption_fields(arguments).values()
    if total["samples"] and not total["captions"]:
        raise CorpusError(
            "not one caption",
            where=" ".join(arguments.corpus),
            got=f"{count_of(total['samples'], 'sample')} without any in {', '.join(places)}",
            remedy="Say where they are: --caption LANGUAGE=FIELD; and delete the folder of --out.",
        )
    captions = [(f"{rule}", total[f"rule {rule}"]) for rule in (*RULES, CHINESE)]
    say(table(("rule", "captions changed"), captions))
    say(
        f"{count_of(total['samples'], 'sample')} with {count_of(total['captions'], 'caption')}: "
        f"{count_of(total['unchanged'], 'caption')} unchanged, {total['changed']} changed, "
        f"{total['emptied']} with nothing left; {count_of(total['unusable'], 'sample')} unusable"
    )


def clean_unit(unit: Unit, fields: dict[str, str], cleaner: Cleaner) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of a unit, and its counts; every caption is unchanged, changed or emptied."""
    rows, counts = [], Counter[str]()
    for sample in unit.rows(fields):
        if isinstance(sample, Unusable):
            counts.update(("unusable", f"unusable {sample.reason}"))
            continue
        counts["samples"] += 1
        row = clean_sample(sample, cleaner, counts)
        if row["captions"]:
            rows.append(row)
    return rows, counts


def clean_sample(sample: Captioned, cleaner: Cleaner, counts: Counter[str]) -> dict[str, Any]:
    """A row: the clean captions, and under ``original`` those that were otherwise."""
    captions, original = dict[str, str](), dict[str, str]()
    for language, text in sample.captions.items():
        cleaned, used = cleaner.clean(text, language)
        counts.update(["captions", *(f"rule {rule}" for rule in used)])
        counts["unchanged" if cleaned == text else "changed" if cleaned else "emptied"] += 1
        if cleaned:
            captions[language] = cleaned
        if cleaned != text:
            original[language] = text
    row: dict[str, Any] = {**sample.names, "captions": captions}
    row |= {"original": original} if original else {}
    return row | ({"provenance": sample.provenance} if sample.provenance else {})
