"""Lists that users bring: one entry a line, or the columns of a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_tools.inspect.criteria import URL
from pea.corpus.metadata import DIGESTS
from pea.corpus.tables import is_table, open_table
from pea.errors import CorpusError


def listed_entries(path: Path) -> Iterator[str]:
    """The URLs and hashes of a list: each line of a text file, or the columns of a table that are called so.

    Raises:
        CorpusError: it cannot be read, or the table has no such column.
    """
    if not path.is_dir() and not is_table(path.name):
        yield from listed_lines(path)
        return
    table = open_table(path)
    wanted = {URL, *DIGESTS}
    columns = [name for name in table.columns if name.strip().lower() in wanted]
    if not columns:
        expected = f"one of {', '.join(sorted(wanted))}"
        raise CorpusError("no column of URLs or hashes", where=path, expected=expected, got=", ".join(table.columns))
    for row in table.rows(columns):
        yield from (text for name in columns if (text := row.text(name)) is not None)


def listed_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError("cannot read the list", where=path, got=error) from None
