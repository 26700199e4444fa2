"""``pea inspect copy``: a cache to another place, verified; what it says while it does so."""

from __future__ import annotations

import sys
from collections.abc import Collection

from data_tools.tables import human_bytes, say
from pea.cache.copying import copy_cache
from pea.plurals import count_of
from pea.storage.location import Location


def copy(source: Location, destination: str, *, languages: Collection[str], blocks: Collection[str]) -> int:
    """Copy, and say what was done; returns the exit code: 0, also where the source itself is not finished yet.

    Raises:
        CacheError, IdentityError, ShardDamagedError, StorageError: as ``copy_cache``.
    """

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\rcopied {done} of {total} shards", end="\n" if done == total else "", file=sys.stderr)

    place = Location.parse(destination)
    done = copy_cache(source, place, languages=languages, blocks=blocks, progress=progress)
    what = f"copied {count_of(done.num_parts, 'shard')}, {human_bytes(done.num_bytes)}"
    say(f"{place}: {what}; {done.num_kept} were there already")
    if done.num_unfinished:
        say(f"{done.num_unfinished} are not finished in {source}: run `pea cache` there, and copy again")
    return 0
