"""``pea inspect remove``: which samples are meant, by name or by what the corpus says of them; and their takedown."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from data_tools.inspect.criteria import Condition, Criterion, OptOut
from data_tools.inspect.listed import listed_entries, listed_lines
from data_tools.tables import say, table
from pea.cache import Cache
from pea.cache.completion import read_record
from pea.cache.identity import READING
from pea.cache.removals import REASON
from pea.corpus.metadata import Metadata, read_metadata
from pea.corpus.samples import expand_tars
from pea.corpus.tables import open_table
from pea.errors import CacheError, CorpusError, ShardUnfinishedError
from pea.plurals import count_of

_SHOWN = 20
Keys = dict[str, dict[str, None]]
"""Tar -> keys, each once, in order."""


@dataclass
class Wanted:
    """Samples that are to be taken down."""

    keys: Keys = field(default_factory=dict)
    criteria: list[Criterion] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What else a reader should know before it is done."""

    def add(self, tar: str, key: str) -> None:
        """One more sample."""
        self.keys.setdefault(tar, {})[key] = None

    @property
    def num_samples(self) -> int:
        """How many there are."""
        return sum(map(len, self.keys.values()))


def remove(arguments: argparse.Namespace) -> int:
    """Say what would be removed, or with ``--yes`` remove it.

    Raises:
        CacheError: no samples are named, or one of no tar of the cache.
        CorpusError: a list or the corpus cannot be read, or does not have what is looked for.
    """
    from pea.cache.takedown import remove_samples

    cache = Cache.open(arguments.cache, partial=True)
    wanted = Wanted()
    _by_name(arguments, cache, wanted)
    _check_arguments(arguments, wanted)
    if arguments.where or arguments.opt_out:
        stored = _stored_keys(cache, cache.identity.tars)
        _by_criteria(arguments, cache, wanted, stored)
        _say_matches(wanted, stored)
    if not arguments.yes:
        absent = _not_stored(cache, wanted)
        for name in absent[:_SHOWN]:
            say(f"{name}  is not stored; would be kept out")
        if len(absent) > _SHOWN:
            say(f"and {len(absent) - _SHOWN:,} more that are not stored")
        say(f"would remove {count_of(wanted.num_samples - len(absent), 'sample')} for good; add --yes to do it")
        return 0
    for tar, keys in wanted.keys.items():
        removed = remove_samples(cache, tar, list(keys))
        for key in keys:
            say(f"{tar}/{key}  {'removed' if key in removed else 'was not stored; will not be'}")
    return 0


def _not_stored(cache: Cache, wanted: Wanted) -> list[str]:
    """The samples of which the cache holds nothing, as of a name that is misspelt."""
    stored = _stored_keys(cache, wanted.keys)
    return [f"{tar}/{key}" for tar, keys in wanted.keys.items() for key in keys if key not in stored.get(tar, ())]


def _check_arguments(arguments: argparse.Namespace, wanted: Wanted) -> None:
    criteria, sources = arguments.where or arguments.opt_out, arguments.tars or arguments.table
    if criteria and not sources:
        raise CorpusError(
            "the cache itself does not keep what is looked for",
            where="pea inspect remove",
            expected="the corpus that it was made from (--tars), or a table with a row per sample (--table)",
        )
    if not criteria and (sources or not wanted.keys):
        expected = "TAR/KEY, --from FILE, or --where CONDITION or --opt-out FILE with --tars or --table"
        raise CacheError("no samples are named", where="pea inspect remove", expected=expected)


def _by_name(arguments: argparse.Namespace, cache: Cache, wanted: Wanted) -> None:
    names = list(arguments.keys) + (listed_lines(arguments.key_file) if arguments.key_file else [])
    for name in names:
        tar = next((tar for tar in cache.identity.tars if name.startswith(f"{tar}/")), None)
        if tar is None:
            raise CacheError("no such sample", where=arguments.cache, expected="TAR/KEY", got=name)
        wanted.add(tar, name.removeprefix(f"{tar}/"))


def _by_criteria(arguments: argparse.Namespace, cache: Cache, wanted: Wanted, stored: dict[str, set[str]]) -> None:
    lists = [OptOut(str(path), listed_entries(path)) for path in arguments.opt_out]
    wanted.criteria = [*map(Condition, arguments.where), *lists]
    if arguments.tars:
        digests = set[str]().union(*(each.digests for each in lists))
        _pick(wanted, _of_tars(cache, arguments.tars, digests))
    if arguments.table:
        _pick(wanted, _of_tables(wanted, arguments.table, stored))
    for criterion in wanted.criteria:
        criterion.finish()


def _pick(wanted: Wanted, samples: Iterable[tuple[str, Metadata]]) -> None:
    for tar, sample in samples:
        matches = [criterion.matches(sample) for criterion in wanted.criteria]  # each of them counts
        if any(matches):
            wanted.add(tar, sample.key)


def _of_tars(cache: Cache, patterns: Sequence[str], digests: set[str]) -> Iterator[tuple[str, Metadata]]:
    """Every sample of the tars that the cache was made from, all of which must be there."""
    found = {tar.name: tar for tar in expand_tars(patterns)}
    known = cache.identity.tars_by_name
    missing = sorted(known.keys() - found.keys())
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        raise CorpusError(
            f"{len(missing)} of {len(known)} tars of the cache are not given",
            where="--tars",
            got=", ".join(missing[:3]) + more,
            remedy="Name all tars that the cache was made from, with their prefixes, as corpora.*.tars does.",
        )
    for name, tar in known.items():
        for sample in read_metadata(found[name], cache.identity.fields.get(READING), digests, tar):
            yield name, sample


def _of_tables(wanted: Wanted, paths: Sequence[str], stored: dict[str, set[str]]) -> Iterator[tuple[str, Metadata]]:
    """The rows of tables that name samples of the cache: by ``key``, and ``tar`` where that is not enough."""
    tars_of: dict[str, list[str]] = {}
    for tar, keys in stored.items():
        for key in keys:
            tars_of.setdefault(key, []).append(tar)
    named, num_rows = set[tuple[str, str]](), 0
    for row in open_table(paths).rows():
        num_rows += 1
        key, tar = row.text("key"), row.text("tar")
        if key is None:
            raise CorpusError("a row names no sample", where=row, expected="a column key, and tar where keys repeat")
        tars = tars_of.get(key, []) if tar is None else [tar] if key in stored.get(tar, ()) else []
        if len(tars) > 1:
            got = f"{key} in {', '.join(sorted(tars)[:3])}"
            raise CorpusError("a key that several tars have", where=row, got=got, remedy="Add a column tar.")
        if tars:
            named.add((tars[0], key))
            yield tars[0], Metadata(key, row.values)
    total = sum(map(len, stored.values()))
    if not named:
        raise CorpusError("no row names a sample of the cache", where=", ".join(paths), got=count_of(num_rows, "row"))
    if len(named) < total:
        wanted.remarks.append(f"{total - len(named)} of {total} samples of the cache have no row in the tables")


def _stored_keys(cache: Cache, tars: Iterable[str]) -> dict[str, set[str]]:
    """Tar -> keys that its finished parts kept or dropped."""
    found: dict[str, set[str]] = {tar: set() for tar in tars}
    for plan, place in cache.newest_records():
        if plan.tar not in found:
            continue
        try:
            record = None if place is None else read_record(place)
        except ShardUnfinishedError:
            record = None
        if record is not None:
            found[plan.tar].update(key for keys in record.kept.values() for key in keys)
            found[plan.tar].update(key for key, reason, _ in record.dropped if reason != REASON)
    return found


def _say_matches(wanted: Wanted, stored: dict[str, set[str]]) -> None:
    rows = [
        [tar, len(keys), len(stored[tar].intersection(keys)), len(stored[tar])] for tar, keys in wanted.keys.items()
    ]
    if rows:
        say(table(["tar", "picked", "of them stored", "stored"], rows))
        say(f"{count_of(len(rows), 'tar')} of {len(stored)}")
    for criterion in wanted.criteria:
        say("; ".join([f"{criterion.name}: {count_of(criterion.num_matches, 'sample')}", *criterion.remarks()]))
    for remark in wanted.remarks:
        say(remark)
