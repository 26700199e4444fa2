"""``pea data captions``: its arguments."""

from __future__ import annotations

import argparse

from stages.command.arguments import local_path

DESCRIPTION = (
    "Bring captions of a table beside a corpus: a folder with one table for each tar, keyed by sample, which "
    "corpora.*.caption_tables names. Neither tars nor cache are rewritten, and training reads the new captions with "
    "the old cache."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data captions``."""
    parser.add_argument(
        "table", nargs="+", metavar="TABLE", help="CSV, TSV, JSONL or Parquet: paths, patterns, folders"
    )
    parser.add_argument(
        "--corpus", nargs="+", required=True, metavar="PLACE", help="the cache, or the tars with their prefix"
    )
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="folder that is made")
    parser.add_argument(
        "--by",
        metavar="COLUMN[=FIELD]",
        help="column that names the sample, and the field of the jsons that it is compared with, as url or path=file "
        "(default: tar and key, or key, or id as TAR/KEY)",
    )
    parser.add_argument(
        "--map", action="append", default=[], metavar="LANGUAGE=COLUMN", help="where captions are (may be repeated)"
    )
    parser.add_argument("--language", metavar="CODE", help="language of a column whose name does not say it")
    parser.add_argument(
        "--format", choices=("jsonl", "parquet"), default="jsonl", help="kind of the tables (default: jsonl)"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Do it; the libraries that it needs are imported only now. Raises what ``stages.data.captions_run`` says."""
    from stages.data.captions_run import run

    return run(arguments)
