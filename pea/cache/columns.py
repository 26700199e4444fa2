"""The arrays of one bucket while a shard is written: rows are collected until a whole file of them is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from pea.cache.schema import CAPTIONS, KEYS, TIMESTEPS_PER_BIN, ArraySpec, ShardSchema, encode_texts
from pea.errors import CacheError

Rows = Mapping[str, npt.NDArray[Any]]
_TEXT_CHUNK_BYTES = 1 << 20


class BucketWriter:
    """The arrays of one bucket."""

    def __init__(self, group: zarr.Group, schema: ShardSchema, specs: tuple[ArraySpec, ...]) -> None:
        self._group, self._draws = group, schema.draws_per_sample
        self._specs = {spec.name: spec for spec in specs}
        self._columns = {spec.name: _Column(group, spec) for spec in specs}
        self._languages = schema.languages
        self._captions: list[Mapping[str, str]] = []
        self.keys: list[str] = []
        self.num_captions: Counter[str] = Counter()
        self.num_caption_dropped = 0
        self.timesteps: Counter[int] = Counter()

    @property
    def num_records(self) -> int:
        """Rows of the record-level arrays."""
        return len(self.keys) * self._draws

    @property
    def raw_bytes(self) -> dict[str, int]:
        """Uncompressed size per array."""
        return {name: column.num_rows * self._specs[name].row_bytes for name, column in self._columns.items()}

    def check(self, count: int, samples: Rows, records: Rows) -> Rows:
        """Arrays of n samples in the schema's types.

        Raises:
            CacheError: names, shapes or types do not fit.
        """
        given = {**samples, **records}
        if set(given) != set(self._specs):
            differing = " ".join(sorted(set(given) ^ set(self._specs)))
            raise CacheError(
                "not the arrays of the schema", where=self._group.name, got=f"missing or extra: {differing}"
            )
        checked = {}
        for name, spec in self._specs.items():
            rows = count * (self._draws if spec.level == "record" else 1)
            checked[name] = _as_spec(spec, np.asarray(given[name]), rows)
        return checked

    def append(self, keys: Sequence[str], captions: Sequence[Mapping[str, str]], arrays: Rows) -> None:
        """Add samples whose arrays ``check`` has seen."""
        for name, rows in arrays.items():
            self._columns[name].append(rows)
        self.keys += keys
        self._captions += captions
        self.num_captions.update(language for texts in captions for language in texts)
        if "timestep" in arrays:
            self.timesteps.update((arrays["timestep"] // TIMESTEPS_PER_BIN).tolist())
            self.num_caption_dropped += int(arrays["caption_dropped"].sum())

    def finish(self) -> None:
        """Write what is left of every array, and the text columns."""
        for column in self._columns.values():
            column.flush()
        self._write_texts(KEYS, self.keys)
        for language in sorted({*self._languages, *self.num_captions}):
            self._write_texts(f"{CAPTIONS}/{language}", [texts.get(language, "") for texts in self._captions])

    def _write_texts(self, name: str, texts: Sequence[str]) -> None:
        data, offsets = encode_texts(texts)
        meaning = {
            "meaning": "UTF-8 text i is bytes[offsets[i]:offsets[i+1]]; empty means none",
            "source": "corpus",
        }
        for suffix, dimension, values in (("bytes", "byte", data), ("offsets", "offset", offsets)):
            chunk = max(1, min(len(values), _TEXT_CHUNK_BYTES // values.itemsize))
            array = _create(
                self._group,
                f"{name}/{suffix}",
                values.dtype,
                (len(values),),
                chunk,
                chunk,
                (dimension,),
                meaning,
            )
            if len(values):
                array[:] = values


class _Column:
    """One array: buffers rows until a zarr shard file is full."""

    def __init__(self, group: zarr.Group, spec: ArraySpec) -> None:
        self._group, self._spec = group, spec
        self._array: zarr.Array[Any] | None = None
        self._waiting: list[npt.NDArray[Any]] = []
        self._num_waiting = 0
        self._num_written = 0

    @property
    def num_rows(self) -> int:
        return self._num_written + self._num_waiting

    def append(self, rows: npt.NDArray[Any]) -> None:
        self._waiting.append(rows)
        self._num_waiting += len(rows)
        while self._num_waiting >= self._spec.rows_per_file:
            self._write(self._spec.rows_per_file)

    def flush(self) -> None:
        """Write what is left; called once, at the end. An array without rows is created empty."""
        self._write(self._num_waiting)

    def _write(self, count: int) -> None:
        spec = self._spec
        if self._array is None:
            chunk = spec.rows_per_chunk
            file_rows = min(spec.rows_per_file, max(1, -(-count // chunk)) * chunk)
            names = (spec.level, *spec.dimension_names)
            self._array = _create(
                self._group,
                spec.name,
                np.dtype(spec.dtype),
                (0, *spec.shape),
                chunk,
                file_rows,
                names,
                spec.attributes,
            )
        if count == 0:
            return
        whole = np.concatenate(self._waiting)
        self._array.resize((self._num_written + count, *spec.shape))
        self._array[self._num_written :] = whole[:count]
        self._num_written += count
        self._waiting = [whole[count:]] if len(whole) > count else []
        self._num_waiting = len(whole) - count


def _create(
    group: zarr.Group,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    chunk_rows: int,
    file_rows: int,
    dimension_names: Sequence[str],
    attributes: Mapping[str, Any],
) -> zarr.Array[Any]:
    """A zarr v3 array that fails loudly: checksummed chunks, and all-zero ones are stored like any other."""
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(chunk_rows, *shape[1:]),
        shards=(file_rows, *shape[1:]),
        compressors=[ZstdCodec(level=1, checksum=False), Crc32cCodec()],
        fill_value=0,
        dimension_names=list(dimension_names),
        attributes=dict(attributes),
        config={"write_empty_chunks": True},
    )


def _as_spec(spec: ArraySpec, rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Rows in the stored type; only floats change theirs."""
    dtype = np.dtype(spec.dtype)
    if rows.shape != (count, *spec.shape):
        raise CacheError("an array of another shape", where=spec.name, expected=(count, *spec.shape), got=rows.shape)
    if rows.dtype != dtype:
        if not (rows.dtype.kind == dtype.kind == "f"):
            raise CacheError("an array of another type", where=spec.name, expected=dtype, got=rows.dtype)
        with np.errstate(over="ignore"):
            rows = rows.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(rows).all():
        raise CacheError("NaN, infinity, or more than the stored type holds", where=spec.name)
    return rows
