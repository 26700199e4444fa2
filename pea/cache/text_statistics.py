"""Where the statistics of the teacher's text states stand beside a cache, and which captions they are taken of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pea.cache.strict_json import read_at_most
from pea.errors import CacheError, LocationExistsError, LocationMissingError
from pea.storage.location import Location

if TYPE_CHECKING:
    from pea.cache.shard import Shard
    from pea.models.text_statistics import TextStatistics

FILE_NAME = "text_statistics.json"
NUM_CAPTIONS = 256
"""Different captions that statistics are taken of, where there are so many."""
_MOST_BYTES = 4 << 20


def read_statistics(directory: Location) -> TextStatistics | None:
    """The statistics beside a cache; None: there are none, as beside older ones.

    Raises:
        CacheError: they are damaged.
        StorageError: they cannot be read.
    """
    from pea.models.text_statistics import TextStatistics  # brings torch, which a look at the summaries does without

    place = directory / FILE_NAME
    try:
        return TextStatistics.from_json(read_at_most(place, _MOST_BYTES))
    except LocationMissingError:
        return None
    except ValueError as error:
        raise CacheError(
            "the statistics of text states are damaged",
            where=place,
            got=error,
            remedy="Delete the file: training then takes them from the cache or the English encoder.",
        ) from error


def write_statistics(directory: Location, statistics: TextStatistics) -> None:
    """Put the statistics beside a cache, where there are none yet.

    Raises:
        DiskFullError: there is no room.
        StorageError: they cannot be written.
    """
    try:
        (directory / FILE_NAME).create_bytes(statistics.to_json().encode())
    except LocationExistsError:
        return


def first_captions(shards: Sequence[Shard], languages: Sequence[str], number: int = NUM_CAPTIONS) -> list[str]:
    """The first different captions of some shards that are not empty: as many in each language, `number` in all."""
    each, found = max(1, number // max(1, len(set(languages)))), []
    for language in dict.fromkeys(languages):
        buckets = (bucket for shard in shards for bucket in shard.buckets.values())
        found += _first_different((text for bucket in buckets for text in bucket.captions(language)), each)
    return found


def _first_different(texts: Iterable[str], number: int) -> list[str]:
    found: dict[str, None] = {}
    for text in texts:
        if text:
            found[text] = None
        if len(found) == number:
            break
    return list(found)
