"""Tables of JSON: one object a line, or one list of objects."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pea.corpus.table_rows import BadRow, Row, explicit, require_columns
from pea.corpus.text_lines import TextFile, TextOptions
from pea.errors import CorpusError
from pea.storage.location import Location

MAX_LIST_BYTES = 256 << 20
_LOOKED_AT = 200  # rows, to find the names that objects have


class JsonFile:
    """A JSON object on each line, or one list of objects."""

    def __init__(self, location: Location, options: TextOptions) -> None:
        self._text, self._location, self.where = TextFile(location, options.encoding), location, str(location)
        with self._text.lines() as lines:
            start = next((line.lstrip() for line in lines if line.strip()), "")
        self._is_list = start.startswith("[")
        names = dict[str, None]()
        for row in islice(self.rows(), _LOOKED_AT):
            names.update(dict.fromkeys(row.values) if isinstance(row, Row) else {})
        self.columns = tuple(names)

    def require(self, columns: Sequence[str]) -> None:
        """Raise CorpusError unless some of the first rows have the columns."""
        require_columns(self.where, columns, self.columns)

    def rows(self, columns: Collection[str] = ()) -> Iterator[Row | BadRow]:
        """Every row; ``columns``: those that are needed, empty for all."""
        for number, value in self._values():
            if isinstance(value, dict):
                values = {name: explicit(each) for name, each in value.items() if not columns or name in columns}
                yield Row(self.where, number, values)
            else:
                got = value.problem if isinstance(value, _NoJson) else f"a {type(value).__name__}, not an object"
                yield BadRow(self.where, number, got)

    def _values(self) -> Iterator[tuple[int, Any]]:
        with self._text.lines() as lines:
            if self._is_list:
                yield from enumerate(self._list(lines), 1)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(line)

    def _list(self, lines: Iterator[str]) -> list[Any]:
        if self._location.status().size_bytes > MAX_LIST_BYTES:
            expected = f"at most {MAX_LIST_BYTES} bytes in one list"
            raise CorpusError("too large", where=self.where, expected=expected, remedy="Write one object a line.")
        found = _parsed("".join(lines))
        if isinstance(found, _NoJson):
            raise CorpusError("not a list of JSON objects", where=self.where, got=found.problem)
        return list(found)


@dataclass(frozen=True)
class _NoJson:
    problem: str


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return _NoJson(f"no JSON: {error}"[:200])
