"""A corpus of texts alone: a table whose images the teacher draws, cut into parts that take the place of tars.

A part is some consecutive rows of one file. Its digest is of the keys and captions that are read from them, not of the
file, so that the same rows in another kind of table are the same part.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

from pea.corpus.captions import read_captions
from pea.corpus.grouping import key_problem, shown_key
from pea.corpus.places import sample_id
from pea.corpus.reasons import BadSampleError, Rejected
from pea.corpus.rules import TextSource
from pea.corpus.table_json import JsonFile
from pea.corpus.table_rows import BadRow, Row, TableFile, column_of
from pea.corpus.tables import open_table
from pea.corpus.tars import TarIdentity
from pea.corpus.text_columns import ALL_CAPTIONS, language_columns, open_texts
from pea.errors import CorpusError
from pea.storage.location import Location

_SURE_WHOLE = 2**53  # up to which a float64 tells every whole number


@dataclass(frozen=True)
class TextPart:
    """Some consecutive rows of one file of a table."""

    name: str
    """Takes the place of a tar's."""
    source: TextSource
    location: Location
    """The file."""
    first: int
    """Rows before it in the file, the unusable ones included."""
    num_rows: int
    fields: tuple[tuple[str, str], ...]
    """Language and column, as the whole table has them."""
    ids: str | None
    """Column of the ids."""
    left_out: tuple[tuple[str, int], ...] = ()
    """Reason and number of the rows that cannot be used."""

    @property
    def num_usable(self) -> int:
        """Rows that are drawn."""
        return self.num_rows - sum(count for _, count in self.left_out)

    def resolve(self) -> TextPart:
        """The same for another working directory."""
        return replace(self, location=self.location.resolve())

    def __str__(self) -> str:
        return f"{self.location}, rows {self.first + 1} to {self.first + self.num_rows}"


@dataclass(frozen=True)
class Text:
    """One row: what the teacher draws, and what the student reads."""

    tar: str
    """Name of the part."""
    key: str
    """The row's id, or a digest of its text."""
    captions: dict[str, str]
    """Language -> caption; no empty ones."""

    @property
    def id(self) -> str:
        """What names the sample everywhere."""
        return sample_id(self.tar, self.key)


def text_parts(source: TextSource) -> Iterator[tuple[TextPart, TarIdentity]]:
    """Every part of the tables with what makes it the same, in one pass; parts are named ``FILE-00000``, ...

    Raises:
        CorpusError: a table cannot be read, or two of them have one name.
    """
    table, fields, ids = open_texts(source)
    stems = [_stem(file) for file in table.files]
    if twice := [stem for stem, times in Counter(stems).items() if times > 1]:
        raise CorpusError("two tables have one name", got=twice[0], remedy="Give each a name of its own.")
    for file in table.files:
        yield from _parts_of(file, source, fields, ids)


def first_parts(source: TextSource, num_files: int) -> Iterator[TextPart]:
    """The first part of each of the first files, as far as they have rows.

    Raises:
        CorpusError: a table cannot be read.
    """
    table, fields, ids = open_texts(source)
    for file in table.files[:num_files]:
        for part, _ in islice(_parts_of(file, source, fields, ids), 1):
            yield part


def _parts_of(
    file: TableFile, source: TextSource, fields: Mapping[str, str], ids: str | None
) -> Iterator[tuple[TextPart, TarIdentity]]:
    rows = file.rows(_needed(file, fields, ids, source))
    for number in count(0):
        chosen = list(islice(rows, source.rows_per_part))
        if not chosen:
            return
        place = (Location.parse(file.where), number * source.rows_per_part, len(chosen))
        part = TextPart(f"{_stem(file)}-{number:05d}", source, *place, tuple(fields.items()), ids)
        found = list(_outcomes(part, chosen))
        left_out = Counter(each.reason for each in found if isinstance(each, Rejected))
        yield replace(part, left_out=tuple(sorted(left_out.items()))), _identity(part.name, found)


def read_text_part(
    part: TextPart,
    *,
    skip: Collection[str] = (),
    in_flight: Callable[[str], object] = lambda _: None,
    expect: TarIdentity | None = None,
) -> Iterator[Text | Rejected]:
    """Every row of a part, usable or not. ``skip``: keys that are rejected; ``expect``: what it must be.

    Raises:
        CorpusError: the table cannot be read, or the part is not what is expected; before the first row.
    """
    [file] = open_table([str(part.location)]).files
    rows = file.rows(_needed(file, dict(part.fields), part.ids, part.source))
    found = list(_outcomes(part, list(islice(rows, part.first, part.first + part.num_rows))))
    if expect is not None and _identity(part.name, found) != expect:
        raise CorpusError(
            "the texts have changed since the cache was begun",
            where=part,
            expected=f"sha256 {expect.sha256[:12]}…",
            remedy="Restore the table, or make them again with `pea cache --replace`.",
        )
    for each in found:
        in_flight(each.key)
        yield Rejected(each.tar, each.key, "process_killed") if each.key in skip else each


def _stem(file: TableFile) -> str:
    return Location.parse(file.where).name.partition(".")[0]


def _needed(file: TableFile, fields: Mapping[str, str], ids: str | None, source: TextSource) -> list[str]:
    """The columns to be read, of files that can leave out others; none: all."""
    wanted = [*fields.values(), *([] if ids is None else [ids])]
    is_open = not source.captions and "*" not in fields  # JSON may have a language in its later rows alone
    return [] if is_open and isinstance(file, JsonFile) else [column_of(name, file.columns) for name in wanted]


def _outcomes(part: TextPart, rows: Sequence[Row | BadRow]) -> Iterator[Text | Rejected]:
    seen: Counter[str] = Counter()
    languages = set[str]()
    for row in rows:
        key = f"row-{row.number}"
        try:
            if isinstance(row, BadRow):
                raise BadSampleError("row_unreadable", row.problem)
            given = _given_id(row, part.ids)
            texts = _captions(row, part, languages)
            key = given or _digest(texts[part.source.source_language])
            seen[key] += 1
            if given is None and seen[key] > 1:
                key = f"{key}-{seen[key]}"
            elif seen[key] > 1:
                raise BadSampleError("key_duplicate", f"row {row.number}")
            yield Text(part.name, key, texts)
        except BadSampleError as bad:
            yield Rejected(part.name, key, bad.reason, bad.detail[:200])


def _given_id(row: Row, ids: str | None) -> str | None:
    value = None if ids is None else row.get(ids)
    if isinstance(value, float) and value.is_integer() and abs(value) < _SURE_WHOLE:
        value = int(value)  # as tables have whole numbers where some rows have none
    if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
        raise BadSampleError("key_not_text", f"{ids}: {value!r}")
    key = "" if value is None else str(value).strip()
    if not key:
        return None
    if problem := key_problem(key):
        raise BadSampleError(problem, shown_key(key))
    return key


def _captions(row: Row, part: TextPart, known: set[str]) -> dict[str, str]:
    columns = dict(part.fields)
    if not part.source.captions and "*" not in columns:
        columns |= {name: name for name in language_columns(row.values)}
    texts = {language: row.get(column) for language, column in columns.items()}
    if "*" in texts:
        texts = _by_language(texts["*"])
    return read_captions({ALL_CAPTIONS: texts}, {"*": ALL_CAPTIONS}, (part.source.source_language,), known)


def _by_language(value: Any) -> dict[str, Any]:
    """The captions in one cell: an object, or pairs, as maps of Arrow come."""
    pairs = value or {}
    if isinstance(pairs, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        pairs = dict(pairs)
    if not isinstance(pairs, Mapping):
        raise BadSampleError("caption_not_text", f"{ALL_CAPTIONS}: {value!a}, and no object of languages")
    return {str(language): text for language, text in pairs.items()}


def _digest(text: str) -> str:
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _identity(name: str, outcomes: Sequence[Text | Rejected]) -> TarIdentity:
    digest, size_bytes = hashlib.sha256(), 0
    for each in outcomes:
        content = [each.captions] if isinstance(each, Text) else [each.reason, each.detail]
        line = json.dumps([each.key, *content], sort_keys=True, ensure_ascii=False).encode("utf-8", "backslashreplace")
        digest.update(line + b"\n")
        size_bytes += len(line) + 1
    return TarIdentity(name, size_bytes, digest.hexdigest())
