"""Write one part of one shard: a store under a name of its own, made durable, and then the record that names it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pea.cache.array_writer import StoreArrays
from pea.cache.columns import BucketWriter, Rows
from pea.cache.completion import CompletionRecord, make_record, read_record, read_summary, record_to_bytes, withdrawal
from pea.cache.garbage import clear_garbage
from pea.cache.publication import generation_name, newest, publish, read_newest
from pea.cache.removals import REASON, removal_name
from pea.cache.schema import ShardSchema
from pea.cache.store_files import StoreFiles
from pea.errors import CacheError, PeaError, ShardUnfinishedError
from pea.storage.leases import take

if TYPE_CHECKING:
    from pea.cache.reader import Cache

_MADE_WITH = "PEA-Cache"


class ShardWriter:
    """Writes one part of the shard of one tar. Leave the ``with`` block without ``finish`` and nothing remains.

    Of several who write the same part, the first to finish wins. Rows are kept in memory until a whole zarr shard file
    is full: a shard filled row by row is compressed and written again for every row.
    """

    def __init__(
        self,
        cache: Cache,
        tar: str,
        part: str,
        schema: ShardSchema,
        *,
        replaces: int | None = None,
        made_with: str = "",
    ) -> None:
        """Take a lease on a new store, and clear what dead writers of the part left.

        ``replaces``: the generation of the finished part that this one takes the place of; None: it must not be
        finished. ``made_with``: what a reader may like to know of the run.

        Raises:
            CacheError: it is finished already, or the manifest does not have it.
            DiskFullError: no room.
            StorageError: the storage cannot be read or written.
        """
        self._cache, self._plan, self._replaces = cache, cache.part_plan(tar, part), replaces
        self._schema, self._made_with = schema, ", ".join(filter(None, (_MADE_WITH, made_with)))
        self._content = cache.part_digest(self._plan)
        self._removed = cache.removed()
        self._directory = cache.shard_dir(tar)
        self._store = self._directory / f"{part}-{uuid.uuid4().hex[:12]}.zarr"
        self._refuse_finished()
        self._lease = take(self._store, f"writing {tar}/{part}")
        try:
            clear_garbage(self._directory, part)
            self._files = StoreFiles(self._store)
            self._arrays = StoreArrays(self._files.put, self._attributes())
        except BaseException:
            self._lease.release()
            raise
        self._buckets: dict[str, BucketWriter] = {}
        self._seen: set[str] = set()
        self._dropped: list[tuple[str, str, str]] = []
        self._ended = False
        self.caption_tables: Mapping[str, int] = {}
        """What became of captions from a table beside the tar, where there is one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            DiskFullError, StorageError: it cannot be written; call ``abort`` (or leave the ``with`` block).
        """
        repeated = [key for key, count in Counter(keys).items() if count > 1 or key in self._seen]
        if repeated:
            raise CacheError("a key is added twice", where=self._store, got=repeated[0])
        writer = self._bucket(bucket)
        checked = writer.check(len(keys), samples, records or {})
        self._seen.update(keys)
        if gone := {key for key in keys if self._removed and removal_name(self._plan.tar, key) in self._removed}:
            keys, captions, checked = self._without_removed(bucket, gone, keys, captions, checked)
        writer.append(keys, captions, checked)

    def reject(self, key: str, reason: str, detail: str = "") -> None:
        """Note a sample that is left out, and why; of one that was taken down, only that it was."""
        name = removal_name(self._plan.tar, key)
        if name not in self._removed:
            self._dropped.append((key, reason, detail))
        elif (name, REASON, "") not in self._dropped:
            self._dropped.append((name, REASON, ""))

    def finish(self) -> CompletionRecord:
        """Publish the part; when this returns, it is finished and durable.

        Returns the record that counts: this writer's, or that of another one who was quicker.

        Raises:
            CacheError: samples of it were taken down meanwhile.
            DiskFullError: no room; nothing looks finished.
            LeaseLostError: this process stood still for so long that others may have cleared its store.
            StorageError: the storage cannot be read or written.
        """
        try:
            for writer in self._buckets.values():
                writer.finish()
            self._arrays.finish()
            self._files.finish()
            kept = {name: writer.keys for name, writer in sorted(self._buckets.items())}
            own = make_record(self._summary(), self._files.entries, kept, self._dropped)
            record = self._publish(own)
            if record is own:
                self._ended = True
                self._lease.release()
                clear_garbage(self._directory, self._plan.part)
        finally:
            self.abort()
        return record

    def abort(self) -> None:
        """Delete what was written so far and give the lease back; harmless after ``finish``."""
        if self._ended:
            return
        self._ended = True
        self._buckets.clear()
        self._files.close()
        if not self._is_recorded():
            self._store.delete_tree()
        self._lease.release()

    def _is_recorded(self) -> bool:
        """Whether the record that counts speaks of the store, or may: then it stays, whatever went wrong after."""
        try:
            return bool(read_newest(self._directory, self._plan.part, read_summary)["store"] == self._store.name)
        except ShardUnfinishedError:
            return False
        except PeaError:
            return True

    def _publish(self, record: CompletionRecord) -> CompletionRecord:
        """Create the record as the next generation, unless the part was finished by another writer."""
        part = self._plan.part
        while True:
            self._refuse_removed(record)
            generation = newest(self._directory, part)
            if generation not in (None, self._replaces):
                try:
                    return read_newest(self._directory, part, read_record)
                except ShardUnfinishedError:
                    pass  # it was withdrawn
            self._lease.confirm()
            number = 0 if generation is None else generation + 1
            if publish(self._directory, part, number, record_to_bytes(record)):
                self._withdraw_removed(record, number)
                return record

    def _refuse_removed(self, record: CompletionRecord) -> None:
        removed = self._cache.removed()
        keys = (key for keys in record.kept.values() for key in keys)
        if removed != self._removed and any(removal_name(self._plan.tar, key) in removed for key in keys):
            raise CacheError(
                "samples of this shard were taken down while it was written",
                where=self._store,
                remedy="Run the same command again; they will be left out.",
            )

    def _withdraw_removed(self, record: CompletionRecord, generation: int) -> None:
        """Look once more: who took a sample down looks for records only after the removal is written."""
        try:
            self._refuse_removed(record)
        except CacheError as error:
            gone = withdrawal(self._plan.tar, self._plan.part, error.message)
            publish(self._directory, self._plan.part, generation + 1, record_to_bytes(gone))
            (self._directory / generation_name(self._plan.part, generation)).delete()
            raise

    def _refuse_finished(self) -> None:
        if self._replaces is not None:
            return
        try:
            read_newest(self._directory, self._plan.part, read_record)
        except ShardUnfinishedError:
            return
        raise CacheError("the shard is finished already", where=self._directory, got=self._plan.part)

    def _bucket(self, name: str) -> BucketWriter:
        if name not in self._buckets:
            if name not in self._schema.buckets:
                raise CacheError("no such bucket", where=self._store, expected=" ".join(self._schema.buckets), got=name)
            self._buckets[name] = BucketWriter(self._arrays, name, self._schema)
        return self._buckets[name]

    def _without_removed(
        self,
        bucket: str,
        gone: set[str],
        keys: Sequence[str],
        captions: Sequence[Mapping[str, str]],
        arrays: Rows,
    ) -> tuple[list[str], list[Mapping[str, str]], Rows]:
        stays = np.array([key not in gone for key in keys], dtype=np.bool_)
        for key in gone:
            self.reject(key, REASON)
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
            **({"caption_tables": dict(self.caption_tables)} if self.caption_tables else {}),
            "arrays": dict(raw_bytes),
            "num_caption_dropped": dropped,
            "timesteps": [timesteps[bin_] for bin_ in range(max(timesteps, default=-1) + 1)],
        }
