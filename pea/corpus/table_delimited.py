"""Tables of delimited text: CSV and TSV, whatever stands between the fields."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pea.corpus.table_rows import BadRow, Row, require_columns
from pea.corpus.text_lines import MAX_LINE_CHARACTERS, TextFile, TextOptions
from pea.errors import CorpusError
from pea.plurals import count_of
from pea.storage.location import Location

_DELIMITERS = (",", "|", ";", "\t")
"""The rarer in texts, the later: where two divide all rows alike, the later one counts."""
_NOWHERE = "\x1f"  # a delimiter that no text has
_LOOKED_AT = 200  # lines, to find out how a table is written
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # Excel's own word for it, in place of a first row


@dataclass(frozen=True)
class _Dialect:
    delimiter: str
    quoted: bool

    def reader(self, lines: Iterator[str]) -> Any:
        csv.field_size_limit(MAX_LINE_CHARACTERS)  # of the whole process, and never made smaller
        if self.quoted:
            return csv.reader(lines, delimiter=self.delimiter, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)


class DelimitedFile:
    """A CSV or TSV file."""

    def __init__(self, location: Location, options: TextOptions) -> None:
        self._text, self.where = TextFile(location, options.encoding), str(location)
        self._has_names = options.names is None
        with self._text.lines() as lines:
            sample = list(islice(lines, _LOOKED_AT))
        told = _SEPARATOR_LINE.fullmatch(sample[0]) if sample else None
        self._num_skipped = 1 if told else 0
        num_names = None if options.names is None else len(options.names)
        delimiter = options.delimiter or (told[1] if told else None)
        self._dialect = _sniffed(sample[self._num_skipped :], [delimiter] if delimiter else _DELIMITERS, num_names)
        self.columns = _checked_names(self.where, options.names or self._first_fields())

    def require(self, columns: Sequence[str]) -> None:
        """Raise CorpusError unless the columns are there."""
        require_columns(self.where, columns, self.columns)

    def rows(self, columns: Collection[str] = ()) -> Iterator[Row | BadRow]:
        """Every row; ``columns``: those that are needed, empty for all."""
        wanted = [(place, name) for place, name in enumerate(self.columns) if not columns or name in columns]
        records = self._records()
        if self._has_names:
            next(records)
        for number, fields in records:
            if isinstance(fields, str):
                yield BadRow(self.where, number, fields)
            elif len(fields) != len(self.columns):
                yield BadRow(
                    self.where, number, f"{count_of(len(fields), 'field')} where the first line has {len(self.columns)}"
                )
            else:
                yield Row(self.where, number, {name: fields[place] or None for place, name in wanted})

    def _records(self) -> Iterator[tuple[int, list[str] | str]]:
        """(Line at which it begins, fields or what is wrong) of everything but empty lines."""
        with self._text.lines() as lines:
            for _ in islice(lines, self._num_skipped):
                pass
            reader = self._dialect.reader(lines)
            while True:
                number = self._num_skipped + reader.line_num + 1
                try:
                    fields = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    self._refuse_open_quote(number, str(error))
                    yield number, f"{error}"
                    continue
                if fields:
                    yield number, fields

    def _refuse_open_quote(self, number: int, problem: str) -> None:
        """A quote that is never closed swallows whatever follows; that is no matter of one row."""
        if "unexpected end" in problem or "field limit" in problem:
            raise CorpusError(
                "a quote is opened and not closed",
                where=f"{self.where}:{number}",
                got=problem,
                remedy="Close it, or write the table as JSONL or Parquet.",
            )

    def _first_fields(self) -> Sequence[str]:
        for number, fields in self._records():
            if isinstance(fields, str):
                raise CorpusError("the first line holds no names", where=f"{self.where}:{number}", got=fields)
            return fields
        raise CorpusError("the table is empty: no line with names of columns", where=self.where)


def _sniffed(lines: Sequence[str], delimiters: Sequence[str], num_names: int | None) -> _Dialect:
    """The way of writing in which the most rows have as many fields as there are names, and that is more than one.

    Only between tabs can a quotation mark be a letter like any other: nothing there needs quoting. If no delimiter
    divides the first row, there is one column, and a comma in it is a comma.
    """
    ways = [_Dialect(delimiter, quoted) for delimiter in delimiters for quoted in (True, delimiter != "\t")]
    found = max(
        ways, key=lambda way: (_agreement(lines, way, num_names)[0], delimiters.index(way.delimiter), way.quoted)
    )
    if _agreement(lines, found, num_names)[1] > 1:
        return found
    return max((_Dialect(_NOWHERE, quoted) for quoted in (True, False)), key=lambda way: len(_counts(lines, way)[0]))


def _agreement(lines: Sequence[str], dialect: _Dialect, num_names: int | None) -> tuple[float, int]:
    """(Share of rows with as many fields as names, or as the first row, that number); (0, 0) where that is one."""
    counts, num_bad = _counts(lines, dialect)
    expected = num_names or (counts[0] if counts else 1)
    if not counts or expected == 1:
        return 0.0, 0
    return sum(count == expected for count in counts) / (len(counts) + num_bad), expected


def _counts(lines: Sequence[str], dialect: _Dialect) -> tuple[list[int], int]:
    """(Number of fields of every row that can be read, number of those that cannot)."""
    reader, counts, num_bad = dialect.reader(iter(lines)), list[int](), 0
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return counts, num_bad
        except csv.Error as error:
            if "unexpected end" in str(error) and reader.line_num == len(lines) == _LOOKED_AT:
                return counts, num_bad  # a row that the sample cuts
            num_bad += 1
            continue
        counts += [len(fields)] if fields else []


def _checked_names(where: str, fields: Sequence[str]) -> tuple[str, ...]:
    """Names of columns; one without a name (as pandas writes its index) is called by its place."""
    names = tuple(field.strip() or f"column {place}" for place, field in enumerate(fields, 1))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CorpusError(
            f"the name {', '.join(twice)} occurs twice in the first line",
            where=where,
            remedy="Name every column once, in the first line.",
        )
    return names
