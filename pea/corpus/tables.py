"""Tables of any size, row by row: CSV and TSV as people and Excel write them, JSONL, Parquet, Arrow.

    table = open_table("captions.csv")                # or a folder, a pattern, a URL, several of them
    for row in table.rows(["file", "caption_zh"]):
        row.get("caption_zh")                         # None: missing
        str(row)                                      # captions.csv:17, for a message

A value that is missing is None, whatever the kind: an empty field of a CSV, null or NaN, a name that a JSON object
lacks. Everything in a CSV is text; other kinds keep their types. A row that cannot be used (another number of fields
than the header, a line that is no JSON object) is never passed over in silence: it is an error, or, where the caller
gives ``on_bad``, it is handed to that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pea.corpus.saved_dataset import named_by_state
from pea.corpus.table_arrow import ArrowFile, ParquetFile
from pea.corpus.table_delimited import DelimitedFile
from pea.corpus.table_json import JsonFile
from pea.corpus.table_rows import BadRow, Row, TableFile, column_of
from pea.corpus.text_lines import TextOptions
from pea.errors import CorpusError, LocationMissingError, StorageError
from pea.storage.location import Location
from pea.storage.patterns import find

KINDS: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv", ".tsv", ".tab", ".txt"),
}
"""Kind of table -> how its files end; text may have ``.gz`` behind that."""
_IN_FOLDERS = {*KINDS["parquet"], *KINDS["arrow"], ".jsonl", ".ndjson", ".csv", ".tsv"}
_REFUSED = {
    ".xlsx": "Excel workbook; save it as `CSV UTF-8`",
    ".xls": "Excel workbook; save it as `CSV UTF-8`",
    ".ods": "spreadsheet; save it as CSV",
    ".zst": "file compressed with zstd; unpack it with `zstd -d`",
    ".bz2": "file compressed with bzip2; unpack it with `bunzip2`",
    ".xz": "file compressed with xz; unpack it with `unxz`",
    ".zip": "zip archive; unpack it",
}
TablePlace = str | Path | Location


class Table:
    """One table in one file or several, which can be read any number of times. Made by ``open_table``."""

    def __init__(self, files: Sequence[TableFile]) -> None:
        self.files = tuple(files)
        names = dict[str, None]()
        for file in self.files:
            names.update(dict.fromkeys(file.columns))
        self.columns = tuple(names)
        """Names of the columns; of JSON, those that the first rows have."""

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].where}{more}"

    def rows(self, columns: Sequence[str] = (), *, on_bad: Callable[[BadRow], object] | None = None) -> Iterator[Row]:
        """Every row, in order. ``columns``: those that are needed, ``a.b`` being ``b`` within ``a``; empty: all.

        Raises:
            CorpusError: a column is not there, a file is damaged, or, without ``on_bad``, a row is bad.
        """
        for file in self.files:
            file.require(columns)
        for file in self.files:
            for row in file.rows({column_of(name, file.columns) for name in columns}):
                if isinstance(row, Row):
                    yield row
                elif on_bad is None:
                    raise CorpusError("a row that cannot be used", where=row, got=row.problem, remedy="Correct it.")
                else:
                    on_bad(row)

    def require(self, columns: Sequence[str]) -> None:
        """Make sure that every file has some columns.

        Raises:
            CorpusError: one has not; the message names those that are there.
        """
        for file in self.files:
            file.require(columns)


def open_table(
    places: TablePlace | Sequence[TablePlace],
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    names: Sequence[str] | None = None,
) -> Table:
    """The table at a path, a URL, a pattern or a folder, or at several of them, as one.

    The kind follows from how a file is named. Of a CSV, the delimiter, the encoding and whether fields are quoted are
    found in its first lines unless they are given. ``names``: columns of a CSV that has no line of names.

    Raises:
        CorpusError: nothing is there, or a file is empty, of an unknown kind, or damaged at its beginning.
        LocationError: a malformed pattern or URL.
    """
    options = TextOptions(delimiter, encoding, None if names is None else tuple(names))
    listed = [places] if isinstance(places, str | Path | Location) else list(places)
    return Table([_open(location, options) for location in dict.fromkeys(_found(listed))])


def is_table(name: str) -> bool:
    """Whether a file is taken for a table where a folder is read."""
    return _ending(name) in _IN_FOLDERS


def table_stem(name: str) -> str | None:
    """``00000`` of ``00000.jsonl.gz``; None: no table, or a hidden one."""
    return Path(name.removesuffix(".gz")).stem if is_table(name) and not name.startswith(".") else None


def _found(places: Sequence[TablePlace]) -> Iterator[Location]:
    for place in places:
        try:
            location = Location.parse(place)
            if location.is_folder():
                yield from _in_folder(location)
                continue
            found = [location] if isinstance(place, Path | Location) else find(str(place))
        except LocationMissingError as error:
            raise CorpusError("no such table", where=place) from error
        except StorageError as error:
            raise CorpusError("cannot read the table", where=place, got=error) from error
        if not found:
            raise CorpusError("no such table", where=place, got="a pattern that matches nothing")
        yield from found


def _in_folder(folder: Location) -> list[Location]:
    """The tables of a folder, which must be of one kind; of a saved data set of Hugging Face, those that it names."""
    saved = named_by_state(folder)
    names = [entry.name for entry in folder.entries() if entry.status and is_table(entry.name)]
    if missing := sorted((saved or set()) - set(names)):
        raise CorpusError("files of the data set are missing", where=folder, got=", ".join(missing[:5]))
    found = [folder / name for name in names if saved is None or name in saved]
    found = sorted(each for each in found if not each.name.startswith("."))
    kinds = sorted({_kind(each) for each in found})
    if len(kinds) == 1:
        return found
    got = f"files of the kinds {', '.join(kinds)}" if kinds else "no file of any of these"
    below = [entry.name for entry in folder.entries() if not kinds and entry.status is None]
    got += f", but folders: {', '.join(below[:5])}; name the one that is meant" if below else ""
    raise CorpusError(
        "not one table", where=folder, expected=f"files that end in {', '.join(sorted(_IN_FOLDERS))}", got=got
    )


def _ending(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _kind(location: Location) -> str:
    ending = _ending(location.name)
    for kind, endings in KINDS.items():
        if ending in endings:
            return kind
    known = ", ".join(each for endings in KINDS.values() for each in endings)
    got = (
        f"an {_REFUSED[ending]}" if ending in _REFUSED and ending[1] == "x" else _REFUSED.get(ending, ending or "none")
    )
    raise CorpusError("not a table that can be read", where=location, expected=f"a name with {known}", got=got)


def _open(location: Location, options: TextOptions) -> TableFile:
    kind = _kind(location)
    if kind in ("parquet", "arrow") and location.name.lower().endswith(".gz"):
        raise CorpusError("not a table that can be read", where=location, got="a file compressed with gzip; unpack it")
    try:
        if location.status().size_bytes == 0:
            raise CorpusError("the table is empty: not one byte", where=location)
        if kind in ("parquet", "arrow"):
            return ParquetFile(location) if kind == "parquet" else ArrowFile(location)
        if kind == "jsonl":
            return JsonFile(location, options)
        return DelimitedFile(location, options)
    except LocationMissingError as error:
        raise CorpusError("no such table", where=location) from error
    except StorageError as error:
        raise CorpusError("cannot read the table", where=location, got=error) from error


__all__ = ["BadRow", "Row", "Table", "TablePlace", "is_table", "open_table", "table_stem"]
