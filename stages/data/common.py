"""What the subcommands of ``pea data`` share that go through captions unit by unit."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

from data_tools.corpus.captioned import ALL_CAPTIONS, units_of
from data_tools.tables import say
from pea.corpus.damaged_tars import FINISHED_IS_KEPT, DamagedTars
from pea.errors import ConfigError, CorpusError
from stages.command.arguments import at_least_one
from stages.data.part_work import Begin, UnitMaker

ROWS_PER_PART = 10_000


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """The corpus, where its captions are, and where the parts go."""
    parser.add_argument(
        "corpus", nargs="+", metavar="CORPUS", help="tars, or tables keyed by sample: paths, patterns, folders, URLs"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder or URL of the table that is made")
    parser.add_argument(
        "--caption",
        action="append",
        default=[],
        metavar="LANGUAGE=FIELD",
        help="where captions are, as zh=caption_zh (may be repeated; default: all of the field captions)",
    )
    parser.add_argument(
        "--format", choices=("jsonl", "parquet"), default="jsonl", help="kind of table (default: jsonl)"
    )
    parser.add_argument(
        "--rows-per-part",
        type=at_least_one,
        default=ROWS_PER_PART,
        metavar="N",
        help=f"rows that a table is cut into (default: {ROWS_PER_PART}); of tars, each is a part",
    )
    add_spread_arguments(parser)


def add_spread_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the work is done."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread over a Ray cluster, a tar or a part of a table at a time: its address, auto, or local for a Ray "
        "of this machine's own; what is read and written must be where every node finds it",
    )
    parser.add_argument(
        "--actors", type=at_least_one, metavar="N", help="with --ray: so many at once, each on a GPU of its own if used"
    )


def check_spread_arguments(arguments: argparse.Namespace) -> None:
    """Make sure that what is asked for can take effect.

    Raises:
        ConfigError: it cannot.
    """
    if arguments.actors is not None and arguments.ray is None:
        raise ConfigError("nothing is spread", where="--actors", remedy="Give --ray as well, or leave --actors out.")


def caption_fields(arguments: argparse.Namespace) -> dict[str, str]:
    """Language -> field.

    Raises:
        ConfigError: a word is not of that form.
    """
    fields = {}
    for word in arguments.caption:
        language, equals, name = word.partition("=")
        if not (language and equals and name):
            raise ConfigError("not a caption's place", where="--caption", expected="LANGUAGE=FIELD", got=word)
        fields[language] = name
    return fields or dict(ALL_CAPTIONS)


def each_part(arguments: argparse.Namespace, begin: Begin, report: Callable[[Counter[str]], object]) -> None:
    """Make the part of every unit that is not there yet, here or on a Ray cluster; ``report`` is told all counts.

    Damaged tars are passed over, and named in the end.

    Raises:
        ConfigError: the folder holds something else.
        CorpusError: tars or a table are damaged, there is no sample, or, on a cluster, a part failed for good.
    """
    check_spread_arguments(arguments)
    total, damaged = Counter[str](), DamagedTars()
    if arguments.ray is not None:
        from stages.data.spread import spread_units  # it brings Ray, which is slow to import

        for counts, _ in spread_units(arguments, begin):
            total += counts
    else:
        maker = UnitMaker(arguments, begin)
        for unit in units_of(arguments.corpus, arguments.rows_per_part):
            with damaged.noted():
                counts, line = maker(unit)
                total += counts
                if line:
                    say(line)
    if total:
        report(total)
    damaged.refuse(FINISHED_IS_KEPT)
    if not total:
        raise CorpusError("the corpus has no samples", where=" ".join(arguments.corpus))
