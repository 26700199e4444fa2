"""Walks over the cache: filling, extending, repairing, removing; made-up rows, no model; on a disk or in a bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pea.cache import Cache, Identity, base_arrays
from pea.cache.audit import audit, repair
from pea.cache.copying import copy_cache
from pea.cache.takedown import remove_samples
from pea.errors import PeaError
from pea.storage import Location, RetryPolicy, configure
from stages.command.guard import guarded
from tests.cache_helpers import LATENT, CacheMaker, content, identity, value_rows
from tests.faults.scenario import Scenario

_SMALL = identity(("a",), draws=2, **{"cache.attention": None})
_LARGE = identity(("a", "b"), draws=3, blocks=("down_blocks.0", "mid_block"), **{"cache.attention": {"num_queries": 3}})
_WHOLE = identity(("a", "b"))
_REMOVED = "a-24x32-1"
_RETRIES = RetryPolicy(max_retries=10, first_wait_s=0.05, longest_wait_s=0.2, give_up_after_s=60, silence_s=1.5)


def _maker(folder: Any) -> CacheMaker:
    """``folder``: a path, or a URL as text."""
    return CacheMaker(
        folder / "cache" if isinstance(folder, Path) else Location.parse(folder) / "cache", samples_per_tar=3
    )


def _files(folder: Any, below: str = "") -> dict[str, Location]:
    """The files of the cache, by their names in it."""
    place = Location.parse(folder) / "cache" / below
    return {entry.name: place / entry.name for entry in place.entries(recursive=True)}


def _patiently(work: Callable[[], int]) -> int:
    """As a command line does it; a store that does not answer is asked for a few seconds."""
    configure({}, _RETRIES)
    return guarded(work)


def _fill(folder: Any, wanted: Identity = _WHOLE, *, extend: bool = False) -> int:
    return _patiently(lambda: 0 * len(_maker(folder).fill(wanted, extend=extend).shards))


def _result(folder: Any) -> dict[str, Any]:
    return _result_of(Location.parse(_maker(folder).directory))


def _result_of(place: Location) -> dict[str, Any]:
    """Digests of all rows, what was dropped, and whether the audit is content."""
    cache = Cache.open(place)
    rows = {name: _digest(value) for name, value in content(cache).items()}
    dropped = [[shard.tar, *map(str, entry)] for shard in cache.shards for entry in shard.record.dropped]
    return {**rows, "dropped": dropped, "problems": _problems(cache)}


def _problems(cache: Cache) -> list[str]:
    """What the audit finds, but for what dead writers left, which nobody reads and a repair clears."""
    return [str(each) for each in audit(cache.directory, jobs=1).problems if each.kind != "garbage"]


def _digest(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _allowed(folder: Any) -> Location:
    return Location.parse(folder) / "allowed.json"


def _between(folder: Any) -> None:
    _is_allowed(folder, Location.parse(_maker(folder).directory))


def _is_allowed(folder: Any, place: Location) -> None:
    """A reader who does not wait for the whole gets an error of ours, or rows that are right."""
    allowed = json.loads(_allowed(folder).read_text())
    try:
        found = content(Cache.open(place, partial=True))
    except PeaError:
        return
    wrong = [name for name, value in found.items() if _digest(value) not in allowed.get(name, [])]
    assert not wrong, wrong


def _note_allowed(folder: Any, *caches: Cache) -> None:
    """Note the rows that a reader may be shown at any time, beside those that were noted before."""
    place = _allowed(folder)
    allowed: dict[str, list[str]] = json.loads(place.read_text()) if place.exists() else {}
    for cache in caches:
        for name, value in content(cache).items():
            allowed.setdefault(name, []).append(_digest(value))
    place.write_text(json.dumps(allowed))


@contextmanager
def _elsewhere(wanted: Identity) -> Iterator[Cache]:
    """A cache on a disk of its own, to know what must come out."""
    with TemporaryDirectory() as other:
        yield _maker(Path(other)).fill(wanted)


def _prepare_fill(folder: Any) -> None:
    with _elsewhere(_WHOLE) as whole:
        _note_allowed(folder, whole)


def _prepare_extend(folder: Any) -> None:
    with _elsewhere(_LARGE) as large:
        _note_allowed(folder, _maker(folder).fill(_SMALL), large)


def _prepare_repair(folder: Any) -> None:
    """One array of tar a is cut short, and one of tar b has a flipped bit."""
    _note_allowed(folder, _maker(folder).fill(_WHOLE))
    for tar, keep in (("a", 0.5), ("b", 1.0)):
        largest = max(_files(folder, f"shards/{tar}").values(), key=lambda each: (each.status().size_bytes, each.name))
        data = bytearray(largest.read_bytes())
        data[3] ^= 16
        largest.write_bytes(bytes(data[: int(len(data) * keep)]))


def _repair(folder: Any) -> int:
    """As ``pea inspect check --repair`` and then ``pea cache``."""

    def work() -> int:
        cache = Cache.create_or_resume(_maker(folder).directory, _WHOLE)
        repair(cache, audit(cache.directory, jobs=1))
        return 0 * len(_maker(folder).fill(_WHOLE).shards)

    return _patiently(work)


def _prepare_remove(folder: Any) -> None:
    whole = _maker(folder).fill(_WHOLE)
    assert len(_leftovers(folder)) >= 1, "the search finds what is there"
    with _elsewhere(_WHOLE) as without:
        remove_samples(without, "a", [_REMOVED])
        _note_allowed(folder, whole, Cache.open(without.directory))


def _remove(folder: Any) -> int:
    return _patiently(lambda: 0 * len(remove_samples(Cache.open(_maker(folder).directory), "a", [_REMOVED])))


def _leftovers(folder: Any) -> list[str]:
    return _found_in(Location.parse(folder) / "cache")


def _found_in(cache: Location) -> list[str]:
    """Files of a cache that hold the removed sample's image, caption or key."""
    (spec,) = (spec for spec in base_arrays(LATENT, "float32", "float16") if spec.name == "latents_mean")
    sought = {"image": value_rows(spec, [f"a/{_REMOVED}"]).tobytes(), "key or caption": _REMOVED.encode()}
    contents = {entry.name: (cache / entry.name).read_bytes() for entry in cache.entries(recursive=True)}
    return [f"{what} in {name}" for name, data in contents.items() for what, part in sought.items() if part in data]


def _copied_to(folder: Any) -> Location:
    return Location.parse(folder) / "copy"


def _prepare_copy(folder: Any) -> None:
    """A copy of a cache that has grown since, and of which a sample was taken down."""
    small = _maker(folder).fill(_SMALL)
    copy_cache(small.directory, _copied_to(folder))
    large = _maker(folder).fill(_LARGE, extend=True)
    _note_allowed(folder, small, large)
    remove_samples(large, "a", [_REMOVED])
    _note_allowed(folder, Cache.open(large.directory))


def _copy(folder: Any) -> int:
    """As ``pea inspect copy``."""
    source, copy = _maker(folder).directory, _copied_to(folder)
    return _patiently(lambda: 0 * copy_cache(Location.parse(source), copy).num_parts)


def _copy_result(folder: Any) -> dict[str, Any]:
    """Of the source and of the copy."""
    places = {"source": Location.parse(folder) / "cache", "copy": _copied_to(folder)}
    return {f"{name}/{key}": value for name, place in places.items() for key, value in _result_of(place).items()}


def _between_copies(folder: Any) -> None:
    _between(folder)
    _is_allowed(folder, _copied_to(folder))


def _copy_leftovers(folder: Any) -> list[str]:
    return _found_in(_copied_to(folder))


FILL = Scenario(_fill, _result, _prepare_fill, _between)
EXTEND = Scenario(lambda folder: _fill(folder, _LARGE, extend=True), _result, _prepare_extend, _between)
REPAIR = Scenario(_repair, _result, _prepare_repair, _between)
COPY = Scenario(_copy, _copy_result, _prepare_copy, _between_copies, _copy_leftovers)
REMOVE = Scenario(_remove, _result, _prepare_remove, _between, _leftovers)
