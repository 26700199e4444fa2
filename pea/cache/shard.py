"""One shard of a cache: its parts on disk, and its buckets as if all parts had been written at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pea.cache.completion import CompletionRecord, read_summary
from pea.cache.part import Part, is_counting, replaced
from pea.cache.part_plan import PartPlace
from pea.cache.schema import CAPTIONS, KEYS, ArraySpec
from pea.cache.stored_array import StoredArray
from pea.corpus.caption_tables import CaptionTables
from pea.corpus.tars import TarIdentity
from pea.errors import CacheError, ShardDamagedError, ShardUnfinishedError
from pea.storage.local_copies import LocalCopies

_MOST_OPEN = 256
"""Shards that stay open, tens of kilobytes each, so that a reader's memory does not grow with the cache."""
_REQUESTS = 16
"""Arrays that are opened at a time in a bucket."""
_REMEDY = "Run `pea inspect check --repair`, then `pea cache` again."


class Shard:
    """The finished parts of one tar; opened when they are asked for, and let go when many others were since."""

    def __init__(
        self,
        tar: TarIdentity,
        places: Sequence[PartPlace],
        draws_per_sample: int,
        copies: LocalCopies | None = None,
        caption_tables: CaptionTables | None = None,
    ) -> None:
        """``tar``: what it was made from; ``draws_per_sample``: of all its parts; ``copies``: as of ``Part``."""
        self.tar_identity, self.tar, self._copies, self._caption_tables = tar, tar.name, copies, caption_tables
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
            parts = [Part(*place, self._copies) for place in self._places]
            return OpenShard(self.tar, parts, self._draws_per_sample, self._caption_tables)
        except ShardUnfinishedError:
            if all(is_counting(place) for place in self._places):
                raise
            raise replaced(self.tar) from None


@lru_cache(maxsize=_MOST_OPEN)
def _opened(shard: Shard) -> OpenShard:
    return shard.open()


class OpenShard:
    """What is in memory of a shard that is open: file lists, keys, and the arrays' metadata."""

    def __init__(
        self, tar: str, parts: list[Part], draws_per_sample: int, caption_tables: CaptionTables | None = None
    ) -> None:
        self.tar, self.parts, self._draws_per_sample, self.caption_tables = tar, parts, draws_per_sample, caption_tables

    @cached_property
    def buckets(self) -> dict[str, Bucket]:
        """As of ``Shard``."""
        found = {name: Bucket(self, name, self._draws_per_sample) for name in self.parts[0].record.kept}
        return {name: bucket for name, bucket in found.items() if bucket.num_samples}


Finish = Callable[[], npt.NDArray[Any]]
"""Waits for rows that are being read."""


class Bucket:
    """The rows of one bucket of one tar: those of all parts, as if they had been written at once."""

    def __init__(self, shard: OpenShard, name: str, draws_per_sample: int) -> None:
        self.name = name
        self.draws_per_sample = draws_per_sample
        self._tar, self._parts = shard.tar, shard.parts  # not the shard, which holds its buckets: no cycle
        self._caption_tables = shard.caption_tables
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
        """Languages of which at least one sample has a caption; those of a caption table of the tar included."""
        stored = self._parts[0].languages(self.name)
        return sorted({*stored, *self._caption_tables.languages(self._tar)}) if self._caption_tables else stored

    def captions(self, language: str) -> list[str]:
        """The caption of each sample; empty where there is none."""
        stored = self._stored_captions(language)
        if self._caption_tables is None:
            return stored
        return self._caption_tables.texts(self._tar, language, self.keys, stored)

    def _stored_captions(self, language: str) -> list[str]:
        if language not in self._parts[0].languages(self.name):
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
            raise replaced(f"{self._tar}/{self.name}") from None

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
