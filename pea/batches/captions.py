"""The captions of caches, read shard by shard each time they are gone through: all of them are never in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from pea.cache import Cache


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


def culture_languages(culture: Cache, languages: Sequence[str]) -> tuple[str, ...]:
    """Those of the student's languages in which the culture cache has captions; all of them where it has none.

    One of several languages may lack a culture corpus of its own; a single one may not, and is refused on reading.
    """
    found = culture.of_each_shard(lambda shard: [each for held in shard.buckets.values() for each in held.languages])
    held = set(chain.from_iterable(found))
    return tuple(language for language in languages if language in held) or tuple(languages)
