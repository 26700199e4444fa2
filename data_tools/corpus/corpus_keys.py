"""The samples of a corpus by tar and key, from its cache or from its tars, and what their jsons say, without images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pea.cache import Cache
from pea.corpus.archive import Member
from pea.corpus.captions import read_json
from pea.corpus.grouping import Content, Unread, key_groups, shown_key
from pea.corpus.places import Tar, expand_tars
from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import EXTENSIONS, JSON, MAX_JSON_BYTES, extensions_of
from pea.corpus.tables import Row
from pea.corpus.tars import open_tar, scan_tar
from pea.errors import CorpusError
from pea.storage.location import Location

_EXTENSIONS = extensions_of(tuple(EXTENSIONS))


def corpus_tars(places: Sequence[str]) -> list[tuple[str, Tar | None]]:
    """(Name, tar) of every tar of a corpus; None in place of the tar: a cache is asked instead.

    Raises:
        CorpusError: there is no such tar.
    """
    if len(places) == 1 and _is_cache(places[0]):
        return [(shard.tar, None) for shard in Cache.open(places[0], partial=True).shards]
    return [(tar.name, tar) for tar in expand_tars(places)]


def sample_keys(places: Sequence[str], name: str, tar: Tar | None) -> list[str]:
    """The keys of one tar of ``corpus_tars``: all of them, or those that the cache kept.

    Raises:
        CorpusError: the tar is damaged.
        CacheError: the cache is.
    """
    if tar is not None:
        return list(scan_tar(tar, _EXTENSIONS).keys)
    shard = Cache.open(places[0], partial=True).shard(name)
    return [key for bucket in shard.buckets.values() for key in bucket.keys]


def sample_documents(tar: Tar) -> Iterator[tuple[str, Row | None]]:
    """(Key, json as a row) of every key of a tar; None: its json is not there, or cannot be read.

    Raises:
        CorpusError: the tar is damaged.
    """
    with open_tar(tar) as opened:
        for group in key_groups(opened.members, _EXTENSIONS, _json_alone):
            if not opened.seen.note(group):
                yield shown_key(group.key), _row(tar, group.files.get(JSON))
        opened.finish()


def _row(tar: Tar, content: Content | None) -> Row | None:
    try:
        return Row(str(tar), 0, read_json(content)) if isinstance(content, bytes) else None
    except BadSampleError:
        return None


def _json_alone(member: Member, _key: str) -> Content:
    wanted = member.kind == "file" and member.name.lower().endswith(f".{JSON}") and member.size_bytes <= MAX_JSON_BYTES
    return member.read() if wanted else Unread("")


def _is_cache(place: str) -> bool:
    return (Location.parse(place) / "manifest.json").exists()


def require_cache_or_tars(places: Sequence[str], by: str | None) -> None:
    """Fields of jsons are in tars alone.

    Raises:
        CorpusError: a cache is given, and ``by`` names a field.
    """
    if by is not None and len(places) == 1 and _is_cache(places[0]):
        raise CorpusError("a cache keeps no fields of the jsons", where=places[0], expected=f"tars, to look up {by} in")
