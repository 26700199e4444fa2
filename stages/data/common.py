"""What the subcommands of ``pea data`` share that go through captions unit by unit."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_tools.corpus.captioned import ALL_CAPTIONS, Unit, units_of
from data_tools.corpus.parts import PartFolder
from data_tools.tables import say
from pea.errors import ConfigError
from pea.storage.location import Location
from stages.command.arguments import at_least_one

ROWS_PER_PART = 10_000
Made = tuple[Sequence[Mapping[str, Any]], Counter[str]]


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


def each_part(arguments: argparse.Namespace, settings: Mapping[str, Any], make: Callable[[Unit], Made]) -> Counter[str]:
    """Make the part of every unit that is not there yet; returns the counts of all.

    Raises:
        ConfigError: the folder holds something else.
        CorpusError: a tar or a table is damaged.
    """
    folder = PartFolder(Location.parse(arguments.out), settings, arguments.format)
    total = Counter[str]()
    for unit in units_of(arguments.corpus, arguments.rows_per_part):
        counts = folder.finished(unit.name, unit.source)
        if counts is None:
            rows, counts = make(unit)
            folder.publish(unit.name, unit.source, rows, counts)
            say(f"{folder.part(unit.name)}: {len(rows)} rows")
        total += counts
    return total
