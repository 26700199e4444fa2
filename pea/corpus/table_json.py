"""Tables of JSON: one object a line, one list of objects, or COCO's images and annotations."""

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
    """A JSON object on each line, one list of objects, or captions as COCO has them."""

    def __init__(self, location: Location, options: TextOptions) -> None:
        self._text, self._location, self.where = TextFile(location, options.encoding), location, str(location)
        start = self._text.start().lstrip()[:1]
        of_one_value = start == "{" and location.name.lower().removesuffix(".gz").endswith(".json")
        self._is_whole = start == "[" or (of_one_value and not isinstance(self._whole(), _NoJson))
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
        if self._is_whole:
            yield from enumerate(_members(self._whole(), self.where), 1)
            return
        with self._text.lines() as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _parsed(line)

    def _whole(self) -> Any:
        if self._location.status().size_bytes > MAX_LIST_BYTES:
            expected = f"at most {MAX_LIST_BYTES} bytes in one value"
            raise CorpusError("too large", where=self.where, expected=expected, remedy="Write one object a line.")
        return _parsed(self._text.whole())


def _members(value: Any, where: str) -> list[Any]:
    """The rows in one JSON value: a list's members, or COCO's annotations, each with what is said of its image."""
    if isinstance(value, _NoJson):
        raise CorpusError("not a list of JSON objects", where=where, got=value.problem)
    if isinstance(value, list):
        return value
    images, annotations = value.get("images"), value.get("annotations")
    if not (isinstance(images, list) and isinstance(annotations, list)):
        expected = "a list, an object a line, or COCO's images and annotations"
        raise CorpusError(
            "one JSON object is no table", where=where, expected=expected, got=f"{', '.join(value)}"[:200]
        )
    by_id = {str(each.get("id")): each for each in images if isinstance(each, dict)}
    return [
        {**by_id.get(str(each.get("image_id")), {}), **each} if isinstance(each, dict) else each for each in annotations
    ]


@dataclass(frozen=True)
class _NoJson:
    problem: str


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return _NoJson(f"no JSON: {error}"[:200])
