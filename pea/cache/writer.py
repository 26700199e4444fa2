"""Write one part of one shard: into a hidden directory, published at once, the completion record last."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from pea.cache.completion import CompletionRecord, make_record, read_summary, write_record
from pea.cache.files import (
    FileLock,
    disk_full_as_error,
    fsync_path,
    fsync_tree,
    remove_temporaries,
    remove_tree,
    temporary_sibling,
)
from pea.cache.schema import CAPTIONS, KEYS, TIMESTEPS_PER_BIN, ArraySpec, ShardSchema, encode_texts
from pea.errors import CacheError, ShardUnfinishedError

if TYPE_CHECKING:
    from pea.cache.reader import Cache

Rows = Mapping[str, npt.NDArray[Any]]
_TEXT_CHUNK_BYTES = 1 << 20


class ShardWriter:
    """Writes one part of the shard of one tar. Leave the ``with`` block without ``finish`` and nothing remains.

    Rows are kept in memory until a whole zarr shard file is full: a shard filled row by row is compressed
    and written again for every row.
    """

    def __init__(
        self, cache: Cache, tar: str, part: str, schema: ShardSchema, *, store_name: str | None = None
    ) -> None:
        """Lock the part and clear what a dead writer left.

        Raises:
            ShardLockedError: another writer is busy with it.
            CacheError: it is finished already, or the manifest does not have it.
        """
        self._plan = cache.part_plan(tar, part)
        self._schema = schema
        self._content = cache.part_digest(self._plan)
        self._removed = cache.removed_keys(tar)
        self._directory = cache.shard_dir(tar)
        self._store = self._directory / (store_name or f"{part}.zarr")
        self._replaces = store_name is not None
        with disk_full_as_error(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self._directory / f"{part}.lock")
        try:
            self._refuse_finished()
            remove_temporaries(self._directory, part)
            self._temporary = temporary_sibling(self._store)
            with disk_full_as_error(self._temporary):
                self._group = zarr.create_group(self._temporary, zarr_format=3, attributes=self._attributes())
        except BaseException:
            self._lock.release()
            raise
        self._buckets: dict[str, _BucketWriter] = {}
        self._seen: set[str] = set()
        self._dropped: list[tuple[str, str, str]] = []
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self.abort()

    def append(
        self,
        bucket: str,
        *,
        keys: Sequence[str],
        captions: Sequence[Mapping[str, str]],
        samples: Rows,
        records: Rows | None = None,
    ) -> None:
        """Add n samples of one bucket with all their records.

        ``samples``: name -> [n, ...]; ``records``: name -> [n * K, ...] in (sample, draw) order; exactly the
        arrays of the schema. Floats are converted to the stored precision. Keys that were taken down are
        left out.

        Raises:
            CacheError: a key was there before, or arrays do not fit the schema.
            DiskFullError: no room; call ``abort`` (or leave the ``with`` block).
        """
        repeated = [key for key, count in Counter(keys).items() if count > 1 or key in self._seen]
        if repeated:
            raise CacheError("a key is added twice", where=self._store, got=repeated[0])
        writer = self._bucket(bucket)
        checked = writer.check(len(keys), samples, records or {})
        self._seen.update(keys)
        if not self._removed.isdisjoint(keys):
            keys, captions, checked = self._without_removed(bucket, keys, captions, checked)
        with disk_full_as_error(self._temporary):
            writer.append(keys, captions, checked)

    def reject(self, key: str, reason: str, detail: str = "") -> None:
        """Note a sample that is left out, and why."""
        self._dropped.append((key, reason, detail))

    def finish(self) -> CompletionRecord:
        """Publish the part; when this returns, it is finished and durable.

        Raises:
            CacheError: it is published already.
            DiskFullError: no room; nothing looks finished.
        """
        try:
            with disk_full_as_error(self._store):
                for writer in self._buckets.values():
                    writer.finish()
                kept = {name: writer.keys for name, writer in sorted(self._buckets.items())}
                record = make_record(self._summary(), self._temporary, kept, self._dropped)
                fsync_tree(self._temporary)
                self._publish()
                write_record(self._directory / f"{self._plan.part}.json", record)
            self._finished = True
        finally:
            self.abort()
        return record

    def abort(self) -> None:
        """Delete what was written so far and free the lock; harmless after ``finish``."""
        self._buckets.clear()
        if self._lock.held:
            remove_tree(self._temporary)
            if not self._is_recorded():
                remove_tree(self._store)
            self._lock.release()

    def _is_recorded(self) -> bool:
        """Whether the completion record speaks of the store: then it stays, whatever went wrong after."""
        try:
            summary = read_summary(self._directory / f"{self._plan.part}.json")
        except ShardUnfinishedError:
            return False
        return bool(summary["store"] == self._store.name)

    def _publish(self) -> None:
        if self._store.exists():  # of a writer that died between the two renames: there is no completion record
            remove_tree(self._store)
        os.rename(self._temporary, self._store)
        fsync_path(self._directory)
        fsync_path(self._directory.parent)

    def _refuse_finished(self) -> None:
        if self._replaces:
            return
        try:
            read_summary(self._directory / f"{self._plan.part}.json")
        except ShardUnfinishedError:
            return
        raise CacheError("the shard is finished already", where=self._store)

    def _bucket(self, name: str) -> _BucketWriter:
        if name not in self._buckets:
            if name not in self._schema.buckets:
                raise CacheError("no such bucket", where=self._store, expected=" ".join(self._schema.buckets), got=name)
            group = self._group.create_group(name, attributes={"bucket": name})
            self._buckets[name] = _BucketWriter(group, self._schema, self._schema.buckets[name])
        return self._buckets[name]

    def _without_removed(
        self, bucket: str, keys: Sequence[str], captions: Sequence[Mapping[str, str]], arrays: Rows
    ) -> tuple[list[str], list[Mapping[str, str]], Rows]:
        stays = np.array([key not in self._removed for key in keys], dtype=np.bool_)
        for key in keys:
            if key in self._removed:
                self.reject(key, "removed")
        rows = {"sample": stays, "record": stays.repeat(self._schema.draws_per_sample)}
        chosen = {spec.name: arrays[spec.name][rows[spec.level]] for spec in self._schema.buckets[bucket]}
        kept = [row for row, stay in enumerate(stays) if stay]
        return [keys[row] for row in kept], [captions[row] for row in kept], chosen

    def _attributes(self) -> dict[str, Any]:
        return {
            "tar": self._plan.tar,
            "part": self._plan.part,
            "draws": [self._plan.draw_start, self._plan.draw_stop],
            "made_with": "PEA-Cache",
        }

    def _summary(self) -> dict[str, Any]:
        buckets = {
            name: {"num_samples": len(writer.keys), "num_records": writer.num_records}
            for name, writer in sorted(self._buckets.items())
        }
        raw_bytes: Counter[str] = Counter()
        timesteps, dropped = Counter[int](), 0
        languages: Counter[str] = Counter()
        for writer in self._buckets.values():
            raw_bytes.update(writer.raw_bytes)
            timesteps.update(writer.timesteps)
            dropped += writer.num_caption_dropped
            languages.update(writer.num_captions)
        return {
            "tar": self._plan.tar,
            "part": self._plan.part,
            "kind": self._plan.kind,
            "draws": [self._plan.draw_start, self._plan.draw_stop],
            "store": self._store.name,
            "content": self._content,
            "num_records": sum(each["num_records"] for each in buckets.values()),
            "buckets": buckets,
            "languages": dict(sorted(languages.items())),
            "arrays": dict(raw_bytes),
            "num_caption_dropped": dropped,
            "timesteps": [timesteps[bin_] for bin_ in range(max(timesteps, default=-1) + 1)],
        }


class _BucketWriter:
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
        for name, rows in arrays.items():
            self._columns[name].append(rows)
        self.keys += keys
        self._captions += captions
        self.num_captions.update(language for texts in captions for language in texts)
        if "timestep" in arrays:
            self.timesteps.update((arrays["timestep"] // TIMESTEPS_PER_BIN).tolist())
            self.num_caption_dropped += int(arrays["caption_dropped"].sum())

    def finish(self) -> None:
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


__all__ = ["ShardWriter"]
