"""``pea data sample``: its arguments."""

from __future__ import annotations

import argparse

from stages.command.arguments import local_path, share_above_zero

DESCRIPTION = (
    "Write tars with a small share of the samples, for a trial run: the same ones every time, chosen by their keys, "
    "under their old names and keys, so that their draws are those of the whole corpus."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data sample``."""
    parser.add_argument("tars", nargs="+", metavar="TARS", help="tars: paths, patterns, URLs")
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="where the new tars go")
    parser.add_argument(
        "--share", type=share_above_zero, default=0.01, metavar="X", help="share of the samples (default: 0.01)"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Do it; the libraries that it needs are imported only now. Raises what ``stages.data.sample_run`` says."""
    from stages.data.sample_run import run

    return run(arguments)
