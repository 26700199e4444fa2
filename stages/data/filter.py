"""``pea data filter``: its arguments."""

from __future__ import annotations

import argparse

from stages.command.arguments import above_zero, at_least_one, local_path
from stages.data.common import add_spread_arguments

DESCRIPTION = (
    "Write tars without the samples that a rule leaves out, under their old names and keys, and say how many each rule "
    "has left. Captions that break a rule are taken out; a sample goes when none, or none that is needed, is left. To "
    "go on after a break, run the same command."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data filter``."""
    parser.add_argument("tars", nargs="+", metavar="TARS", help="tars of `pea data pack`: paths, patterns, URLs")
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="where the new tars go")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="RULE",
        help="what a column has to be, as 'pwatermark<0.5' or 'aesthetic>=5' (may be repeated)",
    )
    parser.add_argument("--min-side", type=at_least_one, metavar="PX", help="least shorter side of an image")
    parser.add_argument("--max-aspect", type=above_zero, metavar="X", help="most times the longer side is the shorter")
    parser.add_argument("--min-caption", type=at_least_one, metavar="N", help="least characters of a caption")
    parser.add_argument("--max-caption", type=at_least_one, metavar="N", help="most characters of a caption")
    parser.add_argument(
        "--language-confidence", type=above_zero, metavar="X", help="least confidence that a caption is in its language"
    )
    parser.add_argument(
        "--need",
        action="append",
        default=[],
        metavar="LANGUAGE",
        help="language that has to be left (may be repeated)",
    )
    parser.add_argument(
        "--duplicates",
        choices=("exact", "perceptual"),
        help="leave out images that came before, in any of the tars",
    )
    parser.add_argument(
        "--prompts",
        type=local_path,
        action="append",
        default=[],
        metavar="FILE",
        help="leave out samples whose caption is a prompt of this evaluation (may be repeated)",
    )
    add_spread_arguments(parser)


def run_arguments(arguments: argparse.Namespace) -> int:
    """Do it; the libraries that it needs are imported only now. Raises what ``stages.data.filter_run`` says."""
    from stages.data.filter_run import run

    return run(arguments)
