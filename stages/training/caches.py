"""The caches that a training reads."""

from __future__ import annotations

from pea.cache import Cache
from pea.cache.identity import reading_identity
from pea.cache.store_copies import copies_of_process
from pea.config import Config
from pea.storage.work import work_folder


def open_cache(config: Config, corpus: str, *, checked: bool = True) -> Cache:
    """The cache of a corpus, whose rows are kept on this machine's disk where it lies in a bucket.

    ``checked``: its identity is compared with the configuration's.

    Raises:
        IdentityError: it is not the one that this configuration describes.
        CacheError: it is not complete, or there is none.
    """
    expected = reading_identity(config, corpus) if checked else None
    most_bytes = config.train.local_copy_bytes
    copies = copies_of_process(most_bytes, work_folder()) if most_bytes else None
    return Cache.open(config.cache_dir(corpus), expect=expected, copies=copies)
