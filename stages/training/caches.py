"""The caches of a run as training reads them: checked, with the captions that lie beside them."""

from __future__ import annotations

from typing import Literal

from pea.cache import Cache
from pea.cache.identity import reading_identity
from pea.config import Config
from pea.corpus.caption_tables import CaptionTables

Corpus = Literal["parallel", "culture"]


def open_cache(config: Config, corpus: Corpus) -> Cache:
    """The checked cache of a corpus.

    Raises:
        IdentityError: it is not the one that the configuration describes.
        CacheError: it is missing, unfinished or damaged, or none of its samples is in the caption tables.
        CorpusError: a caption table cannot be read.
    """
    cache = Cache.open(config.cache_dir(corpus), expect=reading_identity(config, corpus))
    return with_caption_tables(config, corpus, cache)


def with_caption_tables(config: Config, corpus: Corpus, cache: Cache) -> Cache:
    """The cache of a corpus with the captions that lie beside it.

    Raises:
        CacheError: none of its samples is in the caption tables.
        CorpusError: a caption table cannot be read.
    """
    source = config.corpora.parallel if corpus == "parallel" else config.corpora.culture
    if source is None or not source.caption_tables:
        return cache
    read_by_teacher = (source.source_language,) if corpus == "parallel" else ()
    return cache.with_captions(CaptionTables(source.caption_tables, without=read_by_teacher))
