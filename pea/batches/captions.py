"""The captions of caches, read shard by shard each time they are gone through: all of them are never in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pea.cache import Cache

if TYPE_CHECKING:
    from pea.cache.shard import Shard


class Captions(Iterable[str]):
    """Every caption of some caches in some languages, in the caches' order; equal ones come again."""

    def __init__(self, caches: Sequence[Cache], languages: Sequence[str]) -> None:
        self._caches, self._languages = list(caches), list(dict.fromkeys(languages))

    def __iter__(self) -> Iterator[str]:
        for cache in self._caches:
            for shard in cache.shards:
                for bucket in shard.buckets.values():
                    for language in set(self._languages).intersection(bucket.languages):
                        yield from bucket.captions(language)


class Captioned(NamedTuple):
    """How many samples of a cache can be read in some languages."""

    num_samples: int
    num_captioned: int
    """With a caption in at least one of the languages."""
    by_language: dict[str, int]
    """Language -> samples with a caption in it."""


def count_captioned(cache: Cache, languages: Sequence[str]) -> Captioned:
    """Count the samples of a cache that have captions in some languages."""
    spoken = list(dict.fromkeys(languages))
    found = list(cache.of_each_shard(lambda shard: _count(shard, spoken)))
    by_language = {language: sum(each.by_language[language] for each in found) for language in spoken}
    return Captioned(sum(each.num_samples for each in found), sum(each.num_captioned for each in found), by_language)


def _count(shard: Shard, languages: Sequence[str]) -> Captioned:
    num_samples = num_captioned = 0
    by_language = dict.fromkeys(languages, 0)
    for bucket in shard.buckets.values():
        num_samples += bucket.num_samples
        columns = {language: bucket.captions(language) for language in by_language}
        num_captioned += sum(map(any, zip(*columns.values(), strict=True)))
        for language, texts in columns.items():
            by_language[language] += sum(map(bool, texts))
    return Captioned(num_samples, num_captioned, by_language)
