"""The caches of a run as training reads them: checked, with the captions that lie beside them."""

from __future__ import annotations

from pea.cache import Cache
from pea.cache.identity import reading_identity
from pea.cache.joined import JoinedCache
from pea.config import Config
from pea.corpus.caption_tables import CaptionTables
from pea.corpus.corpus_names import DISTILLED
from pea.corpus.corpus_names import CorpusName as Corpus


def open_cache(config: Config, corpus: Corpus) -> Cache:
    """The checked cache of a corpus.

    Raises:
        IdentityError: it is not the one that the configuration describes.
        CacheError: it is missing, unfinished or damaged, or none of its samples is in the caption tables.
        CorpusError: a caption table cannot be read.
    """
    cache = Cache.open(config.cache_dir(corpus), expect=reading_identity(config, corpus))
    return with_caption_tables(config, corpus, cache)


def open_distilled(config: Config) -> Cache:
    """The checked cache of the parallel corpus, and with it that of the described culture images where there is one.

    Raises:
        IdentityError, CacheError, CorpusError: as ``open_cache``.
    """
    parallel = open_cache(config, "parallel")
    return parallel if config.corpora.described is None else JoinedCache(parallel, open_cache(config, "described"))


def with_caption_tables(config: Config, corpus: Corpus, cache: Cache) -> Cache:
    """The cache of a corpus with the captions that lie beside it.

    Raises:
        CacheError: none of its samples is in the caption tables.
        CorpusError: a caption table cannot be read.
    """
    source = config.corpora.source(corpus)
    if not source.caption_tables:
        return cache
    read_by_teacher = (source.source_language,) if corpus in DISTILLED else ()
    return cache.with_captions(CaptionTables(source.caption_tables, without=read_by_teacher))
