"""The caches that a training reads."""

from __future__ import annotations

from pea.cache import Cache
from pea.cache.identity import reading_identity
from pea.cache.store_copies import copies_of_process
from pea.config import Config
from pea.corpus.caption_tables import CaptionTables
from pea.storage.work import work_folder


def open_cache(config: Config, corpus: str, *, checked: bool = True) -> Cache:
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
    source = config.corpora.parallel if corpus == "parallel" else config.corpora.culture
    if source is None or not source.caption_tables:
        return cache
    read_by_teacher = (source.source_language,) if corpus == "parallel" else ()
    return cache.with_captions(CaptionTables(source.caption_tables, without=read_by_teacher))
