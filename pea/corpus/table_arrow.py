"""Parquet and Arrow files (those that Hugging Face datasets keep on disk), a few rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pea.corpus.table_rows import BadRow, Row, explicit, require_columns
from pea.errors import CorpusError, StorageError
from pea.storage.location import Location

_ROWS_AT_ONCE = 256  # rows may hold whole images
_BUFFER_BYTES = 1 << 20
_ARROW_FILE_MARK = b"ARROW1"


def _checked(where: str, names: Sequence[str]) -> tuple[str, ...]:
    """Raises CorpusError where two columns have one name."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise CorpusError(f"two columns are called {', '.join(twice)}", where=where, remedy="Name every column once.")
    return tuple(names)


class ParquetFile:
    """A Parquet file; only the columns that are needed are read, and never a whole row group at once."""

    def __init__(self, location: Location) -> None:
        self._location, self.where = location, str(location)
        with self._opened() as file:
            self.columns = _checked(self.where, file.schema_arrow.names)
            self.num_rows = int(file.metadata.num_rows)

    def require(self, columns: Sequence[str]) -> None:
        """Raise CorpusError unless the columns are there."""
        require_columns(self.where, columns, self.columns)

    def rows(self, columns: Collection[str] = ()) -> Iterator[Row | BadRow]:
        """Every row; ``columns``: those that are needed, empty for all."""
        names = [name for name in self.columns if not columns or name in columns]
        with self._opened() as file:
            yield from _rows(self.where, file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names), names)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _errors(self.where, "Parquet"), self._location.open_stream() as stream:
            yield pq.ParquetFile(pa.PythonFile(stream, mode="r"), buffer_size=_BUFFER_BYTES)


class ArrowFile:
    """An Arrow file, as a stream of record batches or with an index at its end."""

    def __init__(self, location: Location) -> None:
        self._location, self.where = location, str(location)
        with self._opened() as reader:
            self.columns = _checked(self.where, reader.schema.names)

    def require(self, columns: Sequence[str]) -> None:
        """Raise CorpusError unless the columns are there."""
        require_columns(self.where, columns, self.columns)

    def rows(self, columns: Collection[str] = ()) -> Iterator[Row | BadRow]:
        """Every row; ``columns``: those that are needed, empty for all."""
        names = [name for name in self.columns if not columns or name in columns]
        with self._opened() as reader:
            yield from _rows(self.where, _slices(reader), names)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow as pa

        with _errors(self.where, "Arrow"), self._location.open_stream() as stream:
            indexed = stream.read(len(_ARROW_FILE_MARK)) == _ARROW_FILE_MARK
            stream.seek(0)
            source = pa.PythonFile(stream, mode="r")
            with pa.ipc.open_file(source) if indexed else pa.ipc.open_stream(source) as reader:
                yield reader


def _slices(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):
        batches: Iterator[Any] = (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        batches = iter(reader)
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            yield batch.slice(start, _ROWS_AT_ONCE)


def _rows(where: str, batches: Iterator[Any], names: Sequence[str]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        values = [batch.column(name).to_pylist() for name in names]
        for position in range(batch.num_rows):
            number += 1
            yield Row(where, number, {name: explicit(each[position]) for name, each in zip(names, values, strict=True)})


@contextmanager
def _errors(where: str, kind: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except StorageError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CorpusError(
            f"the {kind} file is damaged, or is none", where=where, got=error, remedy="Restore it."
        ) from error
