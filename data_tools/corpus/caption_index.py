"""Captions of a table of any size and order, found by the sample that they belong to: an index on the disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_tools.corpus.column_names import ColumnMapping
from data_tools.corpus.item import Item
from data_tools.corpus.item_captions import take_captions
from pea.corpus.tables import BadRow, Row, Table
from pea.errors import CorpusError, DiskFullError

_ROWS_AT_ONCE = 5000
_CACHE_KIB = 64 << 10


@dataclass
class RowCounts:
    """What became of the rows: ``rows == taken + bad + without_id + without_caption + not_text``."""

    rows: int = 0
    taken: int = 0
    bad: int = 0
    without_id: int = 0
    without_caption: int = 0
    not_text: int = 0
    repeated: int = 0
    """Captions, of those taken, of a sample and language that had one already; the first one counts."""


class CaptionIndex:
    """Id -> captions by language. Made by ``caption_index``."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.counts = RowCounts()

    def fill(self, table: Table, id_of: Callable[[Row], str | None], mapping: ColumnMapping) -> None:
        """Take in every row of a table.

        Raises:
            CorpusError: the table is damaged.
        """
        waiting: list[tuple[str, str]] = []
        counts = self.counts
        for row in table.rows(on_bad=self._bad):
            counts.rows += 1
            item = Item("", 0, bytes)
            take_captions(item, row.get, mapping)
            name = id_of(row)
            if item.problem:
                counts.not_text += 1
            elif name is None:
                counts.without_id += 1
            elif not item.captions:
                counts.without_caption += 1
            else:
                counts.taken += 1
                waiting.append((name, json.dumps(item.captions, ensure_ascii=False)))
            if len(waiting) == _ROWS_AT_ONCE:
                self._store(waiting)
        self._store(waiting)

    def find(self, name: str) -> dict[str, str] | None:
        """The captions of an id, which is noted as asked for; None: there are none."""
        found = self._database.execute("SELECT captions FROM captions WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        self._database.execute("UPDATE captions SET used = used + 1 WHERE name = ?", (name,))
        return dict(json.loads(found[0]))

    def num_ids(self, times: str = ">= 0") -> int:
        """Ids; ``times``: of those that were found so often, as ``= 0``."""
        return int(self._database.execute(f"SELECT count(*) FROM captions WHERE used {times}").fetchone()[0])  # noqa: S608

    def some(self, times: str = ">= 0") -> list[str]:
        """A few ids, for a message."""
        query = f"SELECT name FROM captions WHERE used {times} ORDER BY name LIMIT 3"  # noqa: S608 (ours)
        return [str(name) for (name,) in self._database.execute(query)]

    def _bad(self, _row: BadRow) -> None:
        self.counts.rows += 1
        self.counts.bad += 1

    def _store(self, waiting: list[tuple[str, str]]) -> None:
        """Take in some rows; rows of one id become one."""
        for name, captions in waiting:
            before = self._database.execute("SELECT captions FROM captions WHERE name = ?", (name,)).fetchone()
            texts = json.loads(captions)
            if before is not None:
                known = json.loads(before[0])
                self.counts.repeated += len(known.keys() & texts.keys())
                captions = json.dumps(texts | known, ensure_ascii=False)
            self._database.execute("INSERT OR REPLACE INTO captions VALUES (?, ?, 0)", (name, captions))
        waiting.clear()


@contextmanager
def caption_index(place: Path) -> Iterator[CaptionIndex]:
    """An empty index in a file of that name, which is gone afterwards.

    Raises:
        DiskFullError: there is no room.
    """
    place.unlink(missing_ok=True)
    database = sqlite3.connect(place, isolation_level=None)
    try:
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            database.execute(f"PRAGMA {setting}")
        database.execute("CREATE TABLE captions (name TEXT PRIMARY KEY, captions TEXT, used INTEGER) WITHOUT ROWID")
        database.execute("BEGIN")  # never committed: the file is gone in the end
        yield CaptionIndex(database)
    except sqlite3.Error as error:
        kind = DiskFullError if "full" in str(error) else CorpusError
        raise kind("cannot keep the index of the captions", where=place, got=error) from error
    finally:
        database.close()
        place.unlink(missing_ok=True)


def matched(
    index: CaptionIndex, samples: Iterable[tuple[str, str | None]]
) -> tuple[list[tuple[str, dict[str, str]]], int]:
    """((Key, captions) of samples that have some, number of all samples). ``samples``: key and id."""
    found, num_samples = list[tuple[str, dict[str, str]]](), 0
    for key, name in samples:
        num_samples += 1
        captions = None if name is None else index.find(name)
        if captions:
            found.append((key, captions))
    return found, num_samples
