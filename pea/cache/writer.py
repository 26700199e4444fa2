"""Write one part of one shard: into a hidden directory, published at once, the completion record last."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pea.cache.columns import BucketWriter, Rows
from pea.cache.completion import CompletionRecord, make_record, read_summary, write_record
from pea.cache.schema import ShardSchema
from pea.cache.zarr_files import write_group
from pea.errors import CacheError, ShardUnfinishedError
from pea.storage.durable import (
    disk_full_as_error,
    fsync_path,
    fsync_tree,
    remove_temporaries,
    remove_tree,
    temporary_sibling,
)
from pea.storage.locks import FileLock

if TYPE_CHECKING:
    from pea.cache.reader import Cache

_MADE_WITH = "PEA-Cache"


class ShardWriter:
    """Writes one part of the shard of one tar. Leave the ``with`` block without ``finish`` and nothing remains.

    Rows are kept in memory until a whole zarr shard file is full: a shard filled row by row is compressed
    and written again for every row.
    """

    def __init__(
        self,
        cache: Cache,
        tar: str,
        part: str,
        schema: ShardSchema,
        *,
        store_name: str | None = None,
        made_with: str = "",
    ) -> None:
        """Lock the part and clear what a dead writer left. ``made_with``: what a reader may like to know of the run.

        Raises:
            ShardLockedError: another writer is busy with it.
            CacheError: it is finished already, or the manifest does not have it.
        """
        self._plan = cache.part_plan(tar, part)
        self._schema, self._made_with = schema, ", ".join(filter(None, (_MADE_WITH, made_with)))
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
                write_group(self._temporary, self._attributes())
        except BaseException:
            self._lock.release()
            raise
        self._buckets: dict[str, BucketWriter] = {}
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
                with ThreadPoolExecutor(1, thread_name_prefix="pea-sync") as behind:  # waits for the disk
                    syncing = behind.submit(fsync_tree, self._temporary)
                    record = make_record(self._summary(), self._temporary, kept, self._dropped)
                    syncing.result()
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

    def _bucket(self, name: str) -> BucketWriter:
        if name not in self._buckets:
            if name not in self._schema.buckets:
                raise CacheError("no such bucket", where=self._store, expected=" ".join(self._schema.buckets), got=name)
            write_group(self._temporary / name, {"bucket": name})
            self._buckets[name] = BucketWriter(self._temporary / name, self._schema, self._schema.buckets[name])
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
            "made_with": self._made_with,
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
