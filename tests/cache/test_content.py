"""What a cache holds, told without reading an array."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pea.cache import Cache
from pea.cache.audit import audit, repair
from pea.cache.content import CacheContent, cache_content, is_cache
from pea.cache.takedown import remove_samples
from pea.errors import CacheError
from pea.storage.location import Location
from tests.cache_helpers import CacheMaker, identity


def look(cache: Cache) -> CacheContent:
    return cache_content(Location.parse(cache.directory))


def stores(cache: Cache) -> list[Path]:
    return sorted(Path(cache.directory).rglob("*.zarr"))


def chunks(cache: Cache) -> list[Path]:
    return sorted(path for path in Path(cache.directory).rglob("c/**/*") if path.is_file())


@pytest.mark.slow
def test_parts_that_are_made_again_with_equal_rows_are_no_change(make_cache: CacheMaker) -> None:
    cache = make_cache.fill()
    before = look(cache)
    assert before.problems == ()
    chunk = chunks(cache)[0]
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    assert look(cache) == before, "bytes are compared by `check`"
    repair(cache, audit(Path(cache.directory)))
    assert look(cache).digest != before.digest
    assert look(make_cache.fill()) == before


def test_reports_beside_the_content_do_not_count(make_cache: CacheMaker) -> None:
    cache = make_cache.fill()
    before = look(cache)
    for name in ("run_summary.json", "totals.json", "certificate.json"):
        (Path(cache.directory) / name).write_text("{}")
    assert look(cache) == before


def _take_down(cache: Cache) -> None:
    remove_samples(cache, "a", ["a-24x32-0"])


def _take_down_what_is_not_there(cache: Cache) -> None:
    remove_samples(cache, "a", ["nobody"])


def _extend(cache: Cache) -> None:
    CacheMaker(Path(cache.directory)).fill(identity(("a", "b", "c")), extend=True)


def _lose_every_shard(cache: Cache) -> None:
    shutil.rmtree(Path(cache.directory) / "shards")


def _lose_a_record(cache: Cache) -> None:
    Path(cache.record_path(cache.manifest.parts[0])).unlink()


@pytest.mark.parametrize(
    "change", [_take_down, _take_down_what_is_not_there, _extend, _lose_every_shard, _lose_a_record]
)
def test_other_rows_are_a_change(make_cache: CacheMaker, change: Callable[[Cache], None]) -> None:
    cache = make_cache.fill()
    before = look(cache)
    change(cache)
    after = look(cache)
    assert after.digest != before.digest
    assert after.problems == (), "what `pea cache` makes by itself is no damage"


def _lose_a_store(cache: Cache) -> None:
    shutil.rmtree(stores(cache)[0])


def _lose_a_chunk(cache: Cache) -> None:
    chunks(cache)[0].unlink()


def _cut_a_chunk(cache: Cache) -> None:
    chunks(cache)[0].write_bytes(chunks(cache)[0].read_bytes()[:-1])


def _lose_metadata(cache: Cache) -> None:
    next(stores(cache)[0].rglob("zarr.json")).unlink()


def _alter_a_record(cache: Cache) -> None:
    record = Path(cache.record_path(cache.manifest.parts[0]))
    record.write_bytes(record.read_bytes().replace(b'"kept"', b'"kepT"'))


@pytest.mark.parametrize("harm", [_lose_a_store, _lose_a_chunk, _cut_a_chunk, _lose_metadata, _alter_a_record])
def test_damage_is_a_change_and_is_named(make_cache: CacheMaker, harm: Callable[[Cache], None]) -> None:
    cache = make_cache.fill()
    before = look(cache)
    harm(cache)
    after = look(cache)
    assert after.digest != before.digest
    assert len(after.problems) == 1 and after.problems[0].startswith("a/p000: ")


def test_no_array_is_read(make_cache: CacheMaker) -> None:
    cache = make_cache.fill()
    before = look(cache)
    for chunk in chunks(cache):
        chunk.write_bytes(bytes(chunk.stat().st_size))
    assert look(cache) == before


def test_what_is_a_cache(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache.fill()
    folder = Location.parse(cache.directory)
    assert is_cache(folder)
    (Path(folder) / "manifest.json").write_text("{")
    assert is_cache(folder), "a damaged one is one"
    with pytest.raises(CacheError, match="manifest is damaged"):
        cache_content(folder)
    (tmp_path / "manifest.json").write_text('{"name": "of a web page"}')
    assert not is_cache(Location.parse(tmp_path))
    assert not is_cache(folder / "nothing")
