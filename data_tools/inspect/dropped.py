"""``pea inspect ls --dropped``: which samples were left out of a cache, by reason."""

from __future__ import annotations

from pea.cache import Cache
from pea.cache.completion import read_record
from pea.errors import ShardUnfinishedError


def dropped_samples(cache: Cache, tar: str | None = None) -> dict[str, list[tuple[str, str]]]:
    """Reason -> ``(TAR/KEY, detail)`` of every sample that a finished part left out, in the manifest's order.

    ``tar``: of this one alone. A sample that several parts of its tar left out for one reason is there once.

    Raises:
        ShardDamagedError: a completion record is damaged.
        StorageError: the storage cannot be read.
    """
    found: dict[str, dict[str, str]] = {}
    for plan in cache.manifest.parts:
        if tar not in (None, plan.tar):
            continue
        try:
            record = read_record(cache.record_path(plan))
        except ShardUnfinishedError:
            continue
        for key, reason, detail in record.dropped:
            found.setdefault(reason, {}).setdefault(f"{plan.tar}/{key}", detail)
    return {reason: list(samples.items()) for reason, samples in found.items()}
