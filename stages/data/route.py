"""``pea data route``."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.corpus.beside import BesideTable, joined
from data_tools.corpus.captioned import Captioned, Unit, Unusable
from data_tools.corpus.languages import known_languages, language_of
from data_tools.corpus.route import ROUTES, Routed, Router, RoutingRules
from data_tools.tables import say, table
from pea.corpus.places import Tar
from pea.errors import ConfigError
from pea.plurals import count_of
from stages.command.arguments import local_path, share
from stages.data.common import add_input_arguments, caption_fields, each_part
from stages.data.part_work import Made, PartWork

if TYPE_CHECKING:
    from data_tools.corpus.gains import DescriptionGains

DESCRIPTION = (
    "Decide for each sample whether it is a parallel one (its English is faithful: it can be distilled) or one of a "
    "culture (ordinary diffusion loss), and say why: by script and language of the captions, by who made them, and by "
    "how well they agree with a translation back, where one is given. The table that is made holds route, reasons and "
    "usable captions of every sample. To go on after a break, run the same command."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data route``."""
    defaults = RoutingRules()
    add_input_arguments(parser)
    parser.add_argument(
        "--beside", metavar="TABLE", help="captions that lie beside the corpus, as `pea data translate` leaves them"
    )
    parser.add_argument(
        "--back",
        metavar="TABLE",
        help="translations back, as `pea data translate` leaves them, to compare captions of their language with",
    )
    parser.add_argument(
        "--tars",
        type=local_path,
        metavar="FOLDER",
        help="also write the samples into tars: FOLDER/parallel, FOLDER/culture, FOLDER/english_only",
    )
    parser.add_argument("--english", default="en", metavar="CODE", help="what the teacher reads (default: en)")
    parser.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="of the student (default: all others)"
    )
    parser.add_argument(
        "--min-agreement",
        type=share,
        default=defaults.min_agreement,
        metavar="X",
        help=f"least agreement (chrF) with a translation back, 0 to 1 (default: {defaults.min_agreement})",
    )
    parser.add_argument(
        "--min-confidence",
        type=share,
        default=defaults.min_confidence,
        metavar="X",
        help=f"certainty with which a text must read as another language (default: {defaults.min_confidence})",
    )
    parser.add_argument(
        "--trust-translations",
        action="store_true",
        help="English that a machine made of the native caption counts, also where no translation back confirms it",
    )
    parser.add_argument(
        "--gains",
        metavar="CACHE",
        help="a cache of described images, which has recorded how far each description lowers the teacher's own noise "
        "error: descriptions that the teacher understands are kept, with the reason",
    )
    parser.add_argument(
        "--min-gain",
        type=gain_share,
        metavar="X",
        help="with --gains: share by which a description must lower the error (default: 0)",
    )


def gain_share(text: str) -> float:
    """A finite number below 1, as the type of an argument."""
    value = float(text)
    if not -math.inf < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number below 1")
    return value


def begin(arguments: argparse.Namespace) -> PartWork:
    """Look at the tables that lie beside the corpus.

    Raises:
        CorpusError: there is none.
    """
    rules = RoutingRules(
        english=arguments.english,
        languages=tuple(arguments.language),
        min_agreement=arguments.min_agreement,
        min_confidence=arguments.min_confidence,
        trust_translations=arguments.trust_translations,
        min_gain=None if arguments.gains is None else arguments.min_gain or 0.0,
    )
    gains = _gains(arguments)
    known = known_languages()
    router = Router(rules, language_of, tuple(known)) if known else Router(rules)
    fields = caption_fields(arguments)
    beside, back = (BesideTable(place) if place else None for place in (arguments.beside, arguments.back))
    settings = {
        "command": "route",
        **vars(rules),
        "captions": fields,
        "languages_told": bool(known),
        "tars": arguments.tars and str(arguments.tars),
    }
    settings |= {"beside": arguments.beside, "back": arguments.back, "gains": gains.digest if gains else None}

    def make(unit: Unit) -> Made:
        rows, counts = route_unit(unit, fields, router, beside, back, gains)
        if arguments.tars:
            counts += _split(unit, rows, arguments.tars)
        return rows, counts

    return PartWork(settings, make)


def run_arguments(arguments: argparse.Namespace) -> int:
    """Route every unit, and say what went where."""
    each_part(arguments, begin, _report)
    if not known_languages():
        say("languages were told apart by their scripts alone: py3langid is not installed")
    return 0


def _gains(arguments: argparse.Namespace) -> DescriptionGains | None:
    if arguments.gains is None:
        if arguments.min_gain is not None:
            remedy = "Give --gains as well, or leave --min-gain out."
            raise ConfigError("no gain is known", where="--min-gain", remedy=remedy)
        return None
    from data_tools.corpus.gains import DescriptionGains

    return DescriptionGains(arguments.gains)


def route_unit(
    unit: Unit,
    fields: dict[str, str],
    router: Router,
    beside: BesideTable | None,
    back: BesideTable | None,
    gains: DescriptionGains | None = None,
) -> Made:
    """The rows of a unit, and its counts: every sample has one route, or is unusable."""
    rows, counts = list[dict[str, Any]](), Counter[str]()
    captions = beside.of(unit) if beside else {}
    translations = back.of(unit) if back else {}
    for sample in unit.rows(fields):
        if isinstance(sample, Unusable):
            counts.update(("unusable", f"unusable {sample.reason}"))
            continue
        whole = joined(sample, captions.get((sample.tar, sample.key)))
        translated = translations.get((sample.tar, sample.key))
        known = gains.of_tar(sample.tar) if gains else None
        found = router.route(whole, translated.captions if translated else None, known)
        counts.update(["samples", f"route {found.route}", *(f"why {code}" for code in found.codes)])
        rows.append(_row(whole, found))
    return rows, counts


def _split(unit: Unit, rows: Sequence[Mapping[str, Any]], folder: Path) -> Counter[str]:
    from data_tools.corpus.split import split_tar

    if not isinstance(unit.where, Tar):
        raise ConfigError("a table has no images to write", where="--tars", got=unit.name)

    found = split_tar(unit.where, {row["key"]: row for row in rows}, folder)
    return Counter({f"written {route}": number for route, number in found.items()})


def _row(sample: Captioned, found: Routed) -> dict[str, Any]:
    row: dict[str, Any] = {**sample.names, "route": found.route, "captions": found.captions, "reasons": found.reasons}
    if found.agreement is not None:
        row["agreement"] = round(found.agreement, 4)
    if found.gain is not None:
        row["description_gain"] = round(found.gain, 4)
    return row | ({"provenance": sample.provenance} if sample.provenance else {})


def _report(total: Counter[str]) -> None:
    say(table(("route", "samples"), [(route, total[f"route {route}"]) for route in ROUTES]))
    if written := {route: total[f"written {route}"] for route in ROUTES if total[f"written {route}"]}:
        say("written into tars: " + ", ".join(f"{number} {route}" for route, number in written.items()))
    why = {name.removeprefix("why "): number for name, number in total.items() if name.startswith("why ")}
    others = sorted((name, number) for name, number in why.items() if name not in ROUTES)
    if others:
        say(table(("captions left out", "samples"), others))
    say(f"{count_of(total['samples'], 'sample')} routed; {total['unusable']} unusable")
