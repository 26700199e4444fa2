"""The caches that a training reads."""

from __future__ import annotations

from pea.cache import Cache
from pea.cache.identity import reading_identity
from pea.cache.joined import JoinedCache
from pea.cache.store_copies import copies_of_process
from pea.config import Config
from pea.corpus.caption_tables import CaptionTables
from pea.corpus.corpus_names import DISTILLED, CorpusName
from pea.storage.work import work_folder


def open_cache(config: Config, corpus: CorpusName, *, checked: bool = True) -> Cache:
    """The cache of a corpus, with the captions that lie beside it; rows from a bucket are kept on this machine's disk.

    ``checked``: its identity is compared with the configuration's.

    Raises:
        IdentityError: it is not the one that this configuration describes.
        CacheError: it is not complete, or there is none, or none of its samples is in the caption tables.
        CorpusError: a caption table cannot be read.
    """
    expected = reading_identity(config, corpus) if checked else None
    most_bytes = config.train.local_copy_bytes
    copies = copies_of_process(most_bytes, work_folder()) if most_bytes else None
    cache = Cache.open(config.cache_dir(corpus), expect=expected, copies=copies)
    source = config.corpora.source(corpus)
    if not source.caption_tables:
        return cache
    read_by_teacher = (source.source_language,) if corpus in DISTILLED else ()
    return cache.with_captions(CaptionTables(source.caption_tables, without=read_by_teacher))


def open_distilled(config: Config) -> Cache:
    """The checked cache of the parallel corpus, and with it that of the described culture images where there is one.

    Raises:
        IdentityError, CacheError, CorpusError: as ``open_cache``.
    """
    parallel = open_cache(config, "parallel")
    return parallel if config.corpora.described is None else JoinedCache(parallel, open_cache(config, "described"))


def min_gain(config: Config) -> float | None:
    """What a description must gain for its image to be distilled; None: nothing, or there are no descriptions."""
    return config.train.min_description_gain if config.corpora.described is not None else None
