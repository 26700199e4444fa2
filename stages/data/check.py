"""``pea data check``: its arguments."""

from __future__ import annotations

import argparse

DESCRIPTION = (
    "Read a whole corpus as `pea cache` will, decoding every image: which tars are damaged, which samples would be "
    "left out and why, which languages there are. Of tables, which are read as texts without images: which rows would "
    "be. Exit code 1 if a tar is damaged or a sample unusable."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data check``."""
    add_corpus_arguments(parser)


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    """The tars, and where their captions are."""
    parser.add_argument("tars", nargs="+", metavar="TARS", help="tars: paths, patterns, URLs")
    parser.add_argument(
        "--caption",
        action="append",
        default=[],
        metavar="LANGUAGE=FIELD",
        help="where captions are, as zh=caption_zh (may be repeated; default: all of the field captions)",
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Do it; the libraries that it needs are imported only now. Raises what ``stages.data.check_run`` says."""
    from stages.data.check_run import run

    return run(arguments)
