"""Read a cache: only what is finished, and only what is what its completion record says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pea.cache.completion import read_summary
from pea.cache.differences import check_same
from pea.cache.identity import Identity
from pea.cache.manifest import Manifest, PartPlace, PartPlan, create_or_resume, read_manifest
from pea.cache.removals import removed_keys
from pea.errors import CacheError, IdentityError, ShardUnfinishedError

if TYPE_CHECKING:  # reads arrays, which a look at the summaries does without
    from pea.cache.shard import Shard


class Cache:
    """One cache directory."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def create_or_resume(cls, directory: str | Path, identity: Identity, *, extend: bool = False) -> Cache:
        """The cache to fill: a new one, or the one that is there if it was made from the same.

        ``extend`` lets it grow by tars, draws and blocks.

        Raises:
            IdentityError: it was made from something else.
            CacheError: its manifest is damaged.
            DiskFullError: the manifest cannot be written.
        """
        directory = Path(directory)
        return cls(directory, create_or_resume(directory, identity, extend=extend))

    @classmethod
    def open(cls, directory: str | Path, expect: Identity | None = None, *, partial: bool = False) -> Cache:
        """The cache to read. ``partial`` accepts one that is not complete, and shows its complete tars only.

        Raises:
            CacheError: there is no cache, or its manifest is damaged.
            IdentityError: it is not what ``expect`` says, in the fields that ``expect`` has.
            ShardUnfinishedError: a part is not finished.
            ShardDamagedError: a completion record is damaged.
        """
        cache = cls(Path(directory), read_manifest(Path(directory)))
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
        unfinished = {plan.tar for plan in self.plan()}
        return [self.shard(tar) for tar in self._plans_by_tar if tar not in unfinished]

    def shard(self, tar: str) -> Shard:
        """The shard of one tar, whose parts must be finished when it is opened."""
        from pea.cache.shard import Shard

        places = [PartPlace(plan, self.record_path(plan)) for plan in self._plans_by_tar[tar]]
        return Shard(self.identity.tars_by_name[tar], places, self.draws_per_sample)

    @cached_property
    def num_samples(self) -> int:
        """Samples in the complete shards."""
        return sum(shard.num_samples for shard in self.shards)

    @cached_property
    def num_records(self) -> int:
        """Records in the complete shards."""
        return self.num_samples * self.draws_per_sample

    def plan(self) -> list[PartPlan]:
        """The parts that are not finished.

        Raises:
            ShardDamagedError: a completion record is damaged.
            IdentityError: a shard was made from something else than the manifest says.
        """
        found = {plan for plan, _ in self._finished()}
        return [plan for plan in self.manifest.parts if plan not in found]

    def unfinished(self) -> list[tuple[str, str]]:
        """(tar, part) of each part that is not finished."""
        return [(plan.tar, plan.part) for plan in self.plan()]

    def summaries(self) -> Iterator[dict[str, Any]]:
        """The summaries of the finished parts, in the order of the manifest.

        Raises:
            ShardDamagedError, IdentityError: as ``plan``.
        """
        return (summary for _, summary in self._finished())

    def shard_dir(self, tar: str) -> Path:
        """Where the parts of a tar are."""
        return self.directory / "shards" / tar

    def record_path(self, plan: PartPlan) -> Path:
        """Where a part's completion record is, or will be."""
        return self.shard_dir(plan.tar) / f"{plan.part}.json"

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
        return self.identity.part_digest(plan.tar, plan.draw_start, plan.draw_stop, plan.blocks)

    def removed_keys(self, tar: str) -> frozenset[str]:
        """Keys of a tar that were taken down and must not come back."""
        return removed_keys(self.directory, tar)

    @cached_property
    def _plans_by_tar(self) -> dict[str, list[PartPlan]]:
        plans: dict[str, list[PartPlan]] = {}
        for plan in self.manifest.parts:
            plans.setdefault(plan.tar, []).append(plan)
        return plans

    def _finished(self) -> Iterator[tuple[PartPlan, dict[str, Any]]]:
        shards = self.directory / "shards"
        for plan in self.manifest.parts:
            path = f"{shards}/{plan.tar}/{plan.part}.json"  # thousands of them: a Path costs more than the reading
            try:
                summary = read_summary(path)
            except ShardUnfinishedError:
                continue
            if summary.get("content") != self.part_digest(plan):
                raise IdentityError(
                    "the shard was made from something else than the manifest says",
                    where=path,
                    remedy="Restore the manifest, or delete the shard and run `pea cache`.",
                )
            yield plan, summary
