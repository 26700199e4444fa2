"""The arrays of one bucket while a shard is written: rows are collected until a whole file of them is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pea.cache.array_writer import ArrayWriter, StoreArrays
from pea.cache.schema import (
    CAPTIONS,
    KEYS,
    TIMESTEPS_PER_BIN,
    ArraySpec,
    ShardSchema,
    encode_texts,
    most_text_bytes,
)
from pea.errors import CacheError

Rows = Mapping[str, npt.NDArray[Any]]
_TEXT_CHUNK_BYTES = 1 << 20
_FINITE_BLOCK = 1 << 16
"""Values that are looked at together: what is made of them stays in the processor's cache."""


class BucketWriter:
    """The arrays of one bucket."""

    def __init__(self, arrays: StoreArrays, bucket: str, schema: ShardSchema) -> None:
        """``arrays``: those of the store, to which the bucket's group is added."""
        self._arrays, self._bucket, self._draws = arrays, bucket, schema.draws_per_sample
        self._specs = {spec.name: spec for spec in schema.buckets[bucket]}
        arrays.create_group(bucket, {"bucket": bucket})
        self._columns = {name: _Column(arrays, bucket, spec) for name, spec in self._specs.items()}
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
            raise CacheError("not the arrays of the schema", where=self._bucket, got=f"missing or extra: {differing}")
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
        limit = most_text_bytes(len(texts))
        if len(data) > limit:
            raise CacheError(
                "texts too long to be stored", where=f"{self._bucket}/{name}", expected=limit, got=len(data)
            )
        for suffix, dimension, values in (("bytes", "byte", data), ("offsets", "offset", offsets)):
            chunk = max(1, min(len(values), _TEXT_CHUNK_BYTES // values.itemsize))
            array = self._arrays.create_array(
                f"{self._bucket}/{name}/{suffix}",
                values.dtype,
                (),
                (dimension,),
                meaning,
                chunk_rows=chunk,
                file_rows=chunk,
            )
            for start in range(0, len(values), chunk):
                array.write(values[start : start + chunk])


class _Column:
    """One array: buffers rows until a zarr shard file is full."""

    def __init__(self, arrays: StoreArrays, bucket: str, spec: ArraySpec) -> None:
        self._arrays, self._bucket, self._spec = arrays, bucket, spec
        self._array: ArrayWriter | None = None
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
            num_chunks = max(1, -(-count // spec.rows_per_chunk))
            chunk = max(1, -(-count // num_chunks))  # chunks of equal size: little or nothing to fill up
            self._array = self._arrays.create_array(
                f"{self._bucket}/{spec.name}",
                np.dtype(spec.dtype),
                spec.shape,
                (spec.level, *spec.dimension_names),
                spec.attributes,
                chunk_rows=chunk,
                file_rows=num_chunks * chunk,
            )
        if count == 0:
            return
        whole = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._array.write(whole[:count])
        self._num_written += count
        self._waiting = [whole[count:]] if len(whole) > count else []
        self._num_waiting = len(whole) - count


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
    if dtype.kind == "f" and not _all_finite(rows):
        raise CacheError("NaN, infinity, or more than the stored type holds", where=spec.name)
    return rows


def _all_finite(rows: npt.NDArray[Any]) -> bool:
    if rows.dtype != np.float16:
        return bool(np.isfinite(rows).all())
    bits = np.ascontiguousarray(rows).view(np.uint16).reshape(-1)  # numpy would widen every value
    blocks = (bits[start : start + _FINITE_BLOCK] for start in range(0, len(bits), _FINITE_BLOCK))
    return all(bool(((block & 0x7FFF) < 0x7C00).all()) for block in blocks)
