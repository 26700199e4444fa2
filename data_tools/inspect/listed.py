"""Lists and tables that users bring: one entry a line, or rows with named columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.inspect.criteria import URL
from pea.corpus.metadata import DIGESTS
from pea.errors import CorpusError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a CSV, TSV or JSONL file.

    Raises:
        CorpusError: it cannot be read as one.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if separator := _SEPARATORS.get(path.suffix):
                yield from csv.DictReader(file, delimiter=separator, strict=True)
            elif path.suffix == ".jsonl":
                yield from (json.loads(line) for line in file if line.strip())
            else:
                raise CorpusError("not a table", where=path, expected=".csv, .tsv or .jsonl")
    except (OSError, ValueError, csv.Error) as error:
        raise CorpusError("cannot read the table", where=path, got=error) from None


def listed_entries(path: Path) -> Iterator[str]:
    """The URLs and hashes of a list: each line of a text file, or the columns of a table that are called so.

    Raises:
        CorpusError: it cannot be read, or the table has no such column.
    """
    if path.suffix not in {*_SEPARATORS, ".jsonl"}:
        yield from listed_lines(path)
        return
    columns, has_column = {URL, *DIGESTS}, False
    for row in table_rows(path):
        for name, value in row.items():
            if str(name).strip().lower() in columns:
                has_column = True
                if value:
                    yield str(value)
    if not has_column:
        raise CorpusError("no column of URLs or hashes", where=path, expected=", ".join(sorted(columns)))


def listed_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError("cannot read the list", where=path, got=error) from None
