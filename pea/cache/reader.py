"""Read a cache: only what is finished, and only what is what its completion record says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pea.cache.completion import read_summary
from pea.cache.differences import check_same
from pea.cache.garbage import clear_garbage, clear_temporaries
from pea.cache.identity import Identity
from pea.cache.manifest import Manifest, create_or_resume, read_manifest
from pea.cache.part_plan import PartPlace, PartPlan, part_digest
from pea.cache.publication import generation_name, generations, names_in, newest
from pea.cache.removals import read_removed
from pea.corpus.caption_tables import CaptionTables
from pea.errors import CacheError, IdentityError, ShardUnfinishedError
from pea.storage.local_copies import LocalCopies
from pea.storage.location import Location

if TYPE_CHECKING:  # reads arrays, which a look at the summaries does without
    from pea.cache.shard import Shard

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
_REQUESTS = 32
"""Questions to a bucket at a time."""
_SHARDS = 8
"""Shards that are opened at a time in a bucket, each with several questions."""


class Cache:
    """One cache, on a disk or in a bucket."""

    def __init__(self, directory: str | Path | Location, manifest: Manifest, copies: LocalCopies | None = None) -> None:
        self.directory = Location.parse(directory)
        """Where it is: a folder on a disk or in a bucket."""
        self.manifest, self._copies = manifest, copies
        self.caption_tables: CaptionTables | None = None
        """Captions that lie beside it; see ``with_captions``."""

    @classmethod
    def create_or_resume(
        cls,
        directory: str | Path | Location,
        identity: Identity,
        *,
        extend: bool = False,
        cards: Sequence[Mapping[str, Any]] = (),
    ) -> Cache:
        """The cache to fill: a new one, or the one that is there if it was made from the same.

        ``extend`` lets it grow by tars, draws, blocks, and queries where there are none. ``cards``: of the corpus, for
        a new one.

        Raises:
            IdentityError: it was made from something else.
            CacheError: its manifest is damaged.
            DiskFullError: the manifest cannot be written.
            StorageError: the storage cannot be read or written.
        """
        directory = Location.parse(directory)
        clear_temporaries(directory)
        return cls(directory, create_or_resume(directory, identity, extend=extend, cards=cards))

    @classmethod
    def open(
        cls,
        directory: str | Path | Location,
        expect: Identity | None = None,
        *,
        partial: bool = False,
        copies: LocalCopies | None = None,
    ) -> Cache:
        """The cache to read. ``partial`` accepts one that is not complete, and shows its complete tars only.

        ``copies``: what is read of one in a bucket is kept there, and read there the next time.

        Raises:
            CacheError: there is no cache, or its manifest is damaged.
            IdentityError: it is not what ``expect`` says, in the fields that ``expect`` has.
            ShardUnfinishedError: a part is not finished.
            ShardDamagedError: a completion record is damaged.
            StorageError: the storage cannot be read.
        """
        directory = Location.parse(directory)
        cache = cls(directory, read_manifest(directory), copies)
        if expect is not None:
            check_same(cache.identity, expect, where=directory)
        unfinished = cache.plan()
        if unfinished and not partial:
            names = ", ".join(f"{plan.tar}/{plan.part}" for plan in unfinished[:3])
            raise ShardUnfinishedError(
                f"{len(unfinished)} of {len(cache.manifest.parts)} shards are not finished",
                where=directory,
                got=names + (", ..." if len(unfinished) > 3 else ""),
                remedy="Run `pea cache` to complete it.",
            )
        return cache

    def with_captions(self, tables: CaptionTables) -> Cache:
        """The same cache, whose samples have the captions of these tables as well.

        Raises:
            CacheError: not one of its samples has a caption there.
            CorpusError: a table cannot be read.
        """
        cache = Cache(self.directory, self.manifest, self._copies)
        cache.caption_tables = tables
        for shard in self.shards:
            if tables.has(shard.tar):
                found = tables.of_tar(shard.tar)
                if any(key in found for bucket in shard.buckets.values() for key in bucket.keys):
                    return cache
        names = ", ".join(shard.tar for shard in self.shards[:3])
        raise CacheError(
            "no caption of these tables is of a sample of the cache",
            where=self.directory,
            expected=f"tables that are called as its tars are: {names}, with the keys of their samples",
            got=", ".join(tables.folders),
            remedy="Make them for this cache: `pea data captions TABLE --corpus CACHE --out FOLDER`.",
        )

    @property
    def identity(self) -> Identity:
        """What the cache was made from."""
        return self.manifest.identity

    @property
    def draws_per_sample(self) -> int:
        """K."""
        return self.identity.draws_per_sample

    @cached_property
    def shards(self) -> list[Shard]:
        """The complete shards, one per tar, in the order of the manifest."""
        places: dict[str, list[PartPlace]] = {}
        for plan, record, _ in self._finished():
            places.setdefault(plan.tar, []).append(PartPlace(plan, record))
        whole = (
            (tar, places[tar]) for tar, plans in self._plans_by_tar.items() if len(places.get(tar, ())) == len(plans)
        )
        return [self._shard(tar, found) for tar, found in whole]

    def _shard(self, tar: str, places: list[PartPlace]) -> Shard:
        from pea.cache.shard import Shard

        identity = self.identity.tars_by_name[tar]
        return Shard(identity, places, self.draws_per_sample, self._copies, self.caption_tables)

    def of_each_shard(self, look: Callable[[Shard], Answer]) -> Iterator[Answer]:
        """What ``look`` makes of each complete shard, in order; in a bucket several are opened at a time.

        Raises:
            ShardUnfinishedError, ShardDamagedError, CacheError, StorageError: of the shard that cannot be opened.
        """
        return self._map(look, self.shards, _SHARDS)

    def shard(self, tar: str) -> Shard:
        """The shard of one tar, whose parts must be finished when it is opened."""
        return self._shard(tar, [PartPlace(plan, self.record_path(plan)) for plan in self._plans_by_tar[tar]])

    @cached_property
    def num_samples(self) -> int:
        """Samples in the complete shards."""
        return sum(shard.num_samples for shard in self.shards)

    @cached_property
    def num_records(self) -> int:
        """Records in the complete shards."""
        return self.num_samples * self.draws_per_sample

    def plan(self, *, clear: bool = False) -> list[PartPlan]:
        """The parts that are not finished. ``clear``: what ended writers left beside the others is deleted first.

        Raises:
            ShardDamagedError: a completion record is damaged.
            IdentityError: a shard was made from something else than the manifest says.
            StorageError: the storage cannot be read, or what was left cannot be deleted.
        """
        names = self._names()
        for tar in names if clear else ():
            if len(names[tar]) > 2 * len(generations(names[tar])):  # more than a record and a store of each part
                clear_garbage(self.shard_dir(tar))
        found = {plan for plan, _, _ in self._finished(names)}
        return [plan for plan in self.manifest.parts if plan not in found]

    def unfinished(self) -> list[tuple[str, str]]:
        """(tar, part) of each part that is not finished."""
        return [(plan.tar, plan.part) for plan in self.plan()]

    def summaries(self) -> Iterator[dict[str, Any]]:
        """The summaries of the finished parts, in the order of the manifest.

        Raises:
            ShardDamagedError, IdentityError: as ``plan``.
        """
        return (summary for _, _, summary in self._finished())

    def shard_dir(self, tar: str) -> Location:
        """Where the parts of a tar are."""
        return self.directory / "shards" / tar

    def record_path(self, plan: PartPlan) -> Location:
        """Where the completion record of a part is that counts, or where the first one will be.

        Raises:
            StorageError: the storage cannot be read.
        """
        folder = self.shard_dir(plan.tar)
        return folder / generation_name(plan.part, newest(folder, plan.part) or 0)

    def newest_records(self) -> Iterator[tuple[PartPlan, Location | None]]:
        """Each part of the manifest, with the completion record that counts.

        Raises:
            StorageError: the storage cannot be read.
        """
        return self._newest_records(self._names())

    def _newest_records(self, names: Mapping[str, list[str]]) -> Iterator[tuple[PartPlan, Location | None]]:
        numbers = {tar: generations(found) for tar, found in names.items()}
        for plan in self.manifest.parts:
            found = numbers[plan.tar].get(plan.part)
            yield plan, self.shard_dir(plan.tar) / generation_name(plan.part, found[-1]) if found else None

    def _names(self) -> dict[str, list[str]]:
        """Tar -> what is in its folder."""
        folders = {tar: self.shard_dir(tar) for tar in self._plans_by_tar}
        return dict(zip(folders, self._map(names_in, folders.values()), strict=True))

    def part_plan(self, tar: str, part: str) -> PartPlan:
        """The plan of one part.

        Raises:
            CacheError: the manifest has no such part.
        """
        for plan in self._plans_by_tar.get(tar, ()):
            if plan.part == part:
                return plan
        raise CacheError("the manifest has no such shard", where=self.directory, got=f"{tar}/{part}")

    def part_digest(self, plan: PartPlan) -> str:
        """What identifies the content of a part."""
        return part_digest(self.identity, plan)

    def removed(self) -> frozenset[str]:
        """What stands for the samples that were taken down and must not come back (``removals.removal_name``)."""
        return read_removed(self.directory)

    @cached_property
    def _plans_by_tar(self) -> dict[str, list[PartPlan]]:
        plans: dict[str, list[PartPlan]] = {}
        for plan in self.manifest.parts:
            plans.setdefault(plan.tar, []).append(plan)
        return plans

    def _finished(
        self, names: Mapping[str, list[str]] | None = None
    ) -> Iterator[tuple[PartPlan, Location, dict[str, Any]]]:
        newest_records = self._newest_records(self._names() if names is None else names)
        found = ((plan, record) for plan, record in newest_records if record is not None)
        for plan, record, summary in self._map(lambda each: self._summary(*each), found):
            if summary is None:
                continue
            if summary["content"] != self.part_digest(plan):
                raise IdentityError(
                    "the shard was made from something else than the manifest says",
                    where=record,
                    remedy="Restore the manifest, or delete the shard and run `pea cache`.",
                )
            yield plan, record, summary

    def _summary(self, plan: PartPlan, record: Location) -> tuple[PartPlan, Location, dict[str, Any] | None]:
        """A part with the record that counts and its summary; None: it is not finished."""
        try:
            return plan, record, read_summary(record)
        except ShardUnfinishedError:
            newer = self.record_path(plan)
            return (plan, record, None) if newer == record else self._summary(plan, newer)

    def _map(self, ask: Callable[[Asked], Answer], of: Iterable[Asked], at_once: int = _REQUESTS) -> Iterator[Answer]:
        """``map``; where every question is a request over the network, many at a time."""
        if self.directory.is_local:
            yield from map(ask, of)
            return
        with ThreadPoolExecutor(at_once, thread_name_prefix="pea-look") as pool:
            yield from pool.map(ask, of)
