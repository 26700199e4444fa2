"""One shard of a cache: its parts on disk, and its buckets as if all parts had been written at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pea.cache.completion import CompletionRecord, read_record, read_summary
from pea.cache.manifest import PartPlace, PartPlan
from pea.cache.publication import generation_name, generations, newest
from pea.cache.schema import CAPTIONS, KEYS, ArraySpec, Level, decode_texts, most_text_bytes
from pea.cache.stored_array import StoredArray
from pea.corpus.tars import TarIdentity
from pea.errors import CacheError, PeaError, ShardDamagedError, ShardUnfinishedError
from pea.storage.location import Location

_MOST_OPEN = 256
"""Shards that stay open, tens of kilobytes each, so that a reader's memory does not grow with the cache."""
_REQUESTS = 16
"""Arrays that are opened at a time in a bucket."""
_REMEDY = "Run `pea inspect check --repair`, then `pea cache` again."


class Shard:
    """The finished parts of one tar; opened when they are asked for, and let go when many others were since."""

    def __init__(self, tar: TarIdentity, places: Sequence[PartPlace], draws_per_sample: int) -> None:
        """``tar``: what it was made from; ``draws_per_sample``: of all its parts together."""
        self.tar_identity, self.tar = tar, tar.name
        self._places, self._draws_per_sample = places, draws_per_sample

    @cached_property
    def num_samples(self) -> int:
        """Samples that every part kept."""
        if len(self._places) == 1:
            return int(read_summary(self._places[0].record)["num_samples"])
        return sum(bucket.num_samples for bucket in self.buckets.values())

    @property
    def num_records(self) -> int:
        """Records."""
        return self.num_samples * self._draws_per_sample

    @property
    def record(self) -> CompletionRecord:
        """The completion record of the first part."""
        return self.parts[0].record

    @property
    def parts(self) -> list[Part]:
        """The parts, opened."""
        return _opened(self).parts

    @property
    def buckets(self) -> dict[str, Bucket]:
        """The buckets that the tar's images fell into, those without samples left out. Each stays open while held."""
        return _opened(self).buckets

    def open(self) -> OpenShard:
        """Read and check the completion records.

        Raises:
            ShardUnfinishedError, ShardDamagedError: a part is not finished, or its record is damaged.
            CacheError: a part was replaced since the cache was opened.
        """
        try:
            return OpenShard(self.tar, [Part(*place) for place in self._places], self._draws_per_sample)
        except ShardUnfinishedError:
            if all(is_counting(place) for place in self._places):
                raise
            raise _replaced(self.tar) from None


@lru_cache(maxsize=_MOST_OPEN)
def _opened(shard: Shard) -> OpenShard:
    return shard.open()


class OpenShard:
    """What is in memory of a shard that is open: file lists, keys, and the arrays' metadata."""

    def __init__(self, tar: str, parts: list[Part], draws_per_sample: int) -> None:
        self.tar, self.parts, self._draws_per_sample = tar, parts, draws_per_sample

    @cached_property
    def buckets(self) -> dict[str, Bucket]:
        """As of ``Shard``."""
        found = {name: Bucket(self, name, self._draws_per_sample) for name in self.parts[0].record.kept}
        return {name: bucket for name, bucket in found.items() if bucket.num_samples}


class Part:
    """One finished part of a shard."""

    def __init__(self, plan: PartPlan, record: Location) -> None:
        """``record``: where its completion record is.

        Raises:
            ShardUnfinishedError, ShardDamagedError: as ``read_record``.
            LocationError: the store lies outside of the cache.
        """
        self.plan, self._place = plan, record
        self.generation = generations([record.name])[plan.part][-1]
        """Of the record."""
        self.record = read_record(record)
        self.store = store_location(record, self.record.store)
        self._arrays: dict[str, StoredArray] = {}

    @property
    def is_replaced(self) -> bool:
        """Whether another record counts by now."""
        return not is_counting(PartPlace(self.plan, self._place))

    def array_names(self, bucket: str) -> list[str]:
        """Names of all arrays of a bucket, text columns included."""
        prefix, suffix = f"{bucket}/", "/zarr.json"
        names = (name for name in self.record.files if name.startswith(prefix) and name.endswith(suffix))
        inner = [name[len(prefix) : -len(suffix)] for name in names if len(name) > len(prefix) + len(suffix)]
        groups = {name.rpartition("/")[0] for name in inner}
        groups |= {above for group in groups for above in _folders_above(group)}
        return [name for name in inner if name not in groups]

    def array(self, bucket: str, name: str) -> StoredArray:
        """One array, checked when it is first used."""
        path = f"{bucket}/{name}"
        if path not in self._arrays:
            array = StoredArray(self.store, path, self.record.files, self._sizes)
            self._check_rows(bucket, array, path)
            self._arrays[path] = array
        return self._arrays[path]

    @cached_property
    def _sizes(self) -> dict[str, int] | None:
        """Size of each stored file, where one listing is quicker than asking for each."""
        if self.store.is_local:
            return None
        entries = self.store.entries(recursive=True)
        return {entry.name: entry.status.size_bytes for entry in entries if entry.status is not None}

    def _check_rows(self, bucket: str, array: StoredArray, path: str) -> None:
        """An array has a row a sample or record, as its first dimension says."""
        per_sample = {"sample": 1, "record": self.plan.num_draws}.get(array.dimension_names[0])
        wanted = len(self.record.kept.get(bucket, ())) * (per_sample or 0)
        if per_sample is not None and len(array) != wanted:
            raise ShardDamagedError(
                "the shard is damaged",
                where=self.store / path,
                got=f"{len(array)} rows instead of {wanted}",
                remedy=_REMEDY,
            )

    def spec(self, bucket: str, name: str) -> ArraySpec:
        """What one array is."""
        array = self.array(bucket, name)
        level: Level = "sample" if array.dimension_names[0] == "sample" else "record"
        return ArraySpec(name, level, array.dtype.name, array.shape[1:], array.dimension_names[1:], array.attributes)

    def languages(self, bucket: str) -> list[str]:
        """Languages of which at least one sample has a caption."""
        names = (name.split("/") for name in self.array_names(bucket))
        return sorted(name[1] for name in names if name[0] == CAPTIONS and name[-1] == "bytes")

    def texts(self, bucket: str, name: str) -> list[str]:
        """A text column.

        Raises:
            ShardDamagedError: it is not one text a sample.
        """
        data, offsets = self.array(bucket, f"{name}/bytes"), self.array(bucket, f"{name}/offsets")
        count = len(self.record.kept.get(bucket, ()))
        try:
            if (offsets.shape, data.shape) != ((count + 1,), (len(data),)) or len(data) > most_text_bytes(count):
                raise ValueError(f"{len(data)} bytes and {len(offsets)} offsets for {count} texts")
            return decode_texts(data.read(0, len(data)), offsets.read(0, len(offsets)))
        except PeaError:
            raise
        except ValueError as error:
            where = f"{self.store}/{bucket}/{name}"
            raise ShardDamagedError("not a column of texts", where=where, got=error, remedy=_REMEDY) from None


def is_counting(place: PartPlace) -> bool:
    """Whether a record counts, or there is none that does."""
    counting = newest(place.record.parent, place.plan.part)
    return counting is None or place.record.name == generation_name(place.plan.part, counting)


def _replaced(where: str) -> CacheError:
    return CacheError(
        "the shard was replaced while the cache was open",
        where=where,
        remedy="Samples were removed, or it was repaired: open the cache again.",
    )


def store_location(record: Location, name: str) -> Location:
    """Where the store that a record names is: beside it, and below the cache also where links lead.

    Raises:
        LocationError: it is elsewhere.
    """
    folder = record.parent
    return folder.parent.parent.below(f"{folder.parent.name}/{folder.name}/{name}")


def _folders_above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:stop]) for stop in range(1, len(parts))]


Finish = Callable[[], npt.NDArray[Any]]
"""Waits for rows that are being read."""


class Bucket:
    """The rows of one bucket of one tar: those of all parts, as if they had been written at once."""

    def __init__(self, shard: OpenShard, name: str, draws_per_sample: int) -> None:
        self.name = name
        self.draws_per_sample = draws_per_sample
        self._tar, self._parts = shard.tar, shard.parts  # not the shard, which holds its buckets: no cycle
        self._rows = self._common_rows()
        self.num_samples = len(self.keys)
        """Samples: rows of the sample-level arrays."""

    @property
    def num_records(self) -> int:
        """Records: rows of the record-level arrays."""
        return self.num_samples * self.draws_per_sample

    @cached_property
    def keys(self) -> list[str]:
        """Key of each sample."""
        kept, rows = self._parts[0].record.kept[self.name], self._rows[0]
        return list(kept) if rows is None else [kept[row] for row in rows]

    @cached_property
    def languages(self) -> list[str]:
        """Languages of which at least one sample has a caption."""
        return self._parts[0].languages(self.name)

    def captions(self, language: str) -> list[str]:
        """The caption of each sample; empty where there is none."""
        if language not in self.languages:
            return [""] * self.num_samples
        texts = self._parts[0].texts(self.name, f"{CAPTIONS}/{language}")
        return texts if self._rows[0] is None else [texts[row] for row in self._rows[0]]

    @cached_property
    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays that can be read, text columns left out."""
        specs = {}
        for part in self._parts:
            self._open_together(part)
            for name in part.array_names(self.name):
                if name not in specs and not name.startswith((f"{KEYS}/", f"{CAPTIONS}/")):
                    specs[name] = part.spec(self.name, name)
        return dict(sorted(specs.items()))

    def _open_together(self, part: Part) -> None:
        """Open all arrays of a part in a bucket, where each is a request that would be waited for."""
        if part.store.is_local:
            return
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="pea-open") as pool:
            list(pool.map(lambda name: part.array(self.name, name), part.array_names(self.name)))

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        """Rows ``start <= row < stop`` of some arrays, each counted in rows of its own level.

        Raises:
            ShardDamagedError: what is stored is not what was written.
            CacheError: there is no such array, or the shard was replaced since it was opened.
            StorageError: the storage cannot be read.
        """
        with self._replaced_told():
            under_way = {name: self._begin(name, start, stop) for name in names}
            return {name: finish() for name, finish in under_way.items()}

    @contextmanager
    def _replaced_told(self) -> Iterator[None]:
        """Who takes a sample down deletes the store that others may be reading: no damage."""
        try:
            yield
        except ShardDamagedError:
            if not any(part.is_replaced for part in self._parts):
                raise
            raise _replaced(f"{self._tar}/{self.name}") from None

    def rows_apart(self, name: str) -> bool:
        """Whether ``begin_row`` of an array is as quick as ``read`` of many rows: each is checked and stored alone."""
        ((part, array), *others) = self._holders(name)
        return not others and self._rows[part] is None and array.rows_apart

    def begin_row(self, name: str, row: int, out: npt.NDArray[Any]) -> Callable[[], object]:
        """One row of an array with ``rows_apart``, counted in rows of its level, into ``out`` ``[1, ...]``.

        It is there when what is returned was called; many rows can be under way together.

        Raises:
            ShardDamagedError: what is stored is not what was written.
        """
        with self._replaced_told():
            wait = self._holders(name)[0][1].begin_read(row, row + 1, out)

        def finish() -> None:
            with self._replaced_told():
                wait()

        return finish

    def _begin(self, name: str, start: int, stop: int) -> Finish:
        holders = self._holders(name)
        sample_level = holders[0][1].dimension_names[0] == "sample"
        limit = self.num_samples if sample_level else self.num_records
        if not 0 <= start <= stop <= limit:
            raise IndexError(f"rows {start}..{stop} of {limit} in {name}")
        if sample_level:
            return self._begin_samples(holders[0][0], holders[0][1], 1, start, stop)
        if len(holders) == 1 and self._rows[holders[0][0]] is None:
            return holders[0][1].begin_read(start, stop)
        first, last = start // self.draws_per_sample, -(-stop // self.draws_per_sample)
        draws = [self._parts[index].plan.num_draws for index, _ in holders]
        under_way = [
            self._begin_samples(index, array, num_draws, first, last)
            for (index, array), num_draws in zip(holders, draws, strict=True)
        ]

        def finish() -> npt.NDArray[Any]:
            found = [(wait(), num_draws) for wait, num_draws in zip(under_way, draws, strict=True)]
            merged = np.concatenate([rows.reshape(last - first, n, *rows.shape[1:]) for rows, n in found], axis=1)
            flat = merged.reshape(-1, *merged.shape[2:])
            shift = first * self.draws_per_sample
            return flat[start - shift : stop - shift]

        return finish

    def _begin_samples(self, part: int, array: StoredArray, per_sample: int, start: int, stop: int) -> Finish:
        """The rows of samples start..stop of one part: [(stop - start) * per_sample, ...]."""
        rows = self._rows[part]
        if rows is None or start == stop:
            return array.begin_read(start * per_sample, stop * per_sample)
        chosen = rows[start:stop]
        low, high = int(chosen[0]), int(chosen[-1]) + 1
        wait = array.begin_read(low * per_sample, high * per_sample)

        def finish() -> npt.NDArray[Any]:
            block = wait()
            block = block.reshape(high - low, per_sample, *block.shape[1:])[chosen - low]
            return block.reshape(-1, *block.shape[2:])

        return finish

    def _holders(self, name: str) -> list[tuple[int, StoredArray]]:
        """(part, array) of each part that has an array, by first draw."""
        holders = [
            (index, part.array(self.name, name))
            for index, part in enumerate(self._parts)
            if f"{self.name}/{name}/zarr.json" in part.record.files
        ]
        if not holders:
            raise CacheError("no such array", where=f"{self._tar}/{self.name}", got=name)
        return sorted(holders, key=lambda holder: self._parts[holder[0]].plan.draw_start)

    def _common_rows(self) -> list[npt.NDArray[np.int64] | None]:
        """Per part, the rows of the samples that all parts kept; None: all of them."""
        kept = [part.record.kept.get(self.name, []) for part in self._parts]
        if all(keys == kept[0] for keys in kept):
            return [None] * len(kept)
        common = set(kept[0]).intersection(*kept[1:])
        rows = [[row for row, key in enumerate(keys) if key in common] for keys in kept]
        if any(
            [keys[row] for row in chosen] != [kept[0][row] for row in rows[0]]
            for keys, chosen in zip(kept, rows, strict=True)
        ):
            raise ShardDamagedError("the parts of the shard disagree about its order", where=self._tar, remedy=_REMEDY)
        return [np.array(chosen, dtype=np.int64) for chosen in rows]
