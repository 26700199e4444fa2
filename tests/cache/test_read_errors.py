"""A storage that cannot be read says nothing about what is stored: no damage, and nothing is repaired."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pea.cache import Cache, stored_array
from pea.cache.audit import audit
from pea.cache.takedown import remove_samples
from pea.errors import CacheError, PeaError, ShardDamagedError, StorageError
from pea.storage.disk import DiskFile
from stages.cli import main
from tests.cache_helpers import CacheMaker, content, identity, store_of


@pytest.fixture
def cache(make_cache: CacheMaker) -> Cache:
    return make_cache.fill(identity(["a"]))


def failing(pattern: str, number: int) -> Callable[[DiskFile, int, int | None], bytes]:
    """Reading a file whose path ends like this fails as a bad disk or a missing right does."""
    original = DiskFile.read

    def read(self: DiskFile, start: int, stop: int | None) -> bytes:
        if str(self.path).endswith(pattern):
            from pea.storage.failures import translated

            with translated("cannot read", self.path):
                raise OSError(number, os.strerror(number))
        return original(self, start, stop)

    return read


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("pattern", ["p000.json", "manifest.json", "noise_pred/zarr.json"])
def test_a_read_error_is_not_damage(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, pattern: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in Path(cache.directory).rglob("*.json"))
    with monkeypatch.context() as patch:
        patch.setattr(DiskFile, "read", failing(pattern, number))
        with pytest.raises(StorageError, match="cannot read"):
            content(Cache.open(cache.directory))
        with pytest.raises(StorageError, match="cannot read"):
            audit(cache.directory)
        assert main(["inspect", "check", str(cache.directory), "--repair"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in Path(cache.directory).rglob("*.json")) == before
    assert audit(cache.directory).problems == []


def test_an_error_of_the_reading_library_is_told_from_damage(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = cache.shards[0].buckets["24x32"]

    def unavailable(*_: object) -> None:  # what tensorstore raises for a status that is not about content
        raise ValueError('UNAVAILABLE: Error reading "x": Input/output error')

    monkeypatch.setattr(stored_array, "wait_for", unavailable)
    with pytest.raises(StorageError, match="cannot read; got UNAVAILABLE"):
        bucket.read(["noise_pred"], 0, 1)


def test_a_file_that_links_to_itself_is_refused(cache: Cache) -> None:
    path = next(store_of(cache).rglob("noise_pred/c/0/0/0/0"))
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(PeaError, match="leads out of the folder"):
        content(Cache.open(cache.directory))


def test_who_reads_during_a_removal_is_told_so(cache: Cache) -> None:
    bucket = cache.shards[0].buckets["24x32"]
    bucket.read(["noise_pred"], 0, 1)
    remove_samples(Cache.open(cache.directory), "a", ["a-24x32-1"])
    with pytest.raises(CacheError, match=r"replaced while the cache was open.*open the cache again") as caught:
        bucket.read(["noise_pred"], 0, 1)
    assert not isinstance(caught.value, ShardDamagedError)
    assert Cache.open(cache.directory).num_samples == 3
