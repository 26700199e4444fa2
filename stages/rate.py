"""Let people say which of two pictures fits a prompt better, blind, and count what they said.

    pea rate page --config configs/demo.yaml --set culture --rows adapter translation --out rating.html
    pea rate count ratings-*.json

The page needs nothing else and sends nothing anywhere: raters open it, use the arrow keys, and save one JSON file.
Which side is which row follows from the seed and the prompt's id, and stands nowhere on the page. What is compared must
have been drawn by `pea eval` with equal settings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.command.arguments import add_config_option, at_least_one, at_least_zero, local_path
from stages.command.common import command_main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea rate``."""
    commands = parser.add_subparsers(dest="rate_command", required=True, metavar="WHAT")
    page = commands.add_parser("page", help="write the page that people rate on")
    add_config_option(page, "the setup's YAML file", required=True)
    page.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    page.add_argument("--rows", nargs=2, default=("adapter", "translation"), metavar="ROW", help="what is compared")
    page.add_argument("--set", dest="prompt_set", default="culture", metavar="NAME", help="of evaluate.prompts")
    page.add_argument("--limit", type=at_least_one, metavar="N", help="so many pairs (default: all)")
    page.add_argument("--seed", type=at_least_zero, default=0, metavar="N", help="of order and sides (default: 0)")
    page.add_argument(
        "--out",
        type=local_path,
        default=Path("rating.html"),
        metavar="FILE",
        help="file to write (default: rating.html)",
    )
    count = commands.add_parser("count", help="win rates from the files that the page saved")
    count.add_argument("files", nargs="+", type=local_path, metavar="FILE", help="what raters saved")
    count.add_argument("--json", action="store_true", help="for programs")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Write the page, or count.

    Raises:
        EvaluationError: what is to be compared was not drawn, or a file holds no ratings.
    """
    return _write_page(arguments) if arguments.rate_command == "page" else _count(arguments)


def _write_page(arguments: argparse.Namespace) -> int:
    from stages.command.common import config_from

    config = config_from(arguments)
    from data_tools.report.rating import rating_page  # with Pillow, and a wrong configuration is said without
    from data_tools.tables import say
    from pea.storage.durable import write_text

    html = rating_page(config, tuple(arguments.rows), arguments.prompt_set, seed=arguments.seed, limit=arguments.limit)
    write_text(arguments.out, html)
    say(f"{arguments.out} ({len(html) / 1e6:.1f} MB)")
    return 0


def _count(arguments: argparse.Namespace) -> int:
    from data_tools.report.rating import as_json, win_rates
    from data_tools.tables import say

    rates = win_rates(arguments.files)
    if arguments.json:
        say(as_json(rates))
        return 0
    for each in rates:
        interval = f"{each.rate.low:.1%} to {each.rate.high:.1%}, n = {each.rate.n}"
        say(
            f"{each.prompt_set}: {each.rows[0]} is preferred to {each.rows[1]} in {each.rate.accuracy:.1%} ({interval})"
        )
        say(f"  {each.wins} wins, {each.ties} ties, {each.losses} losses")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
