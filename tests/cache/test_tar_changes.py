"""Tars that are replaced or retired as a whole, wherever it is broken off; a cache that holds nothing binds nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pea.cache import Cache, tar_changes
from pea.cache.audit import audit, repair
from pea.cache.certificate import Certificate, read_certificate, write_certificate
from pea.cache.identity import RETIRED, Identity
from pea.cache.tar_changes import create_or_begin_anew, replace_tar, retire_tar
from pea.corpus.tars import TarIdentity
from pea.errors import CacheError, IdentityError, LeaseHeldError, ShardUnfinishedError
from pea.storage import Location
from pea.storage.leases import take
from tests.cache_helpers import CacheMaker, content, identity, store_of

NEW_A = TarIdentity("a", 8, "c" * 64)


class BrokenOffError(Exception):
    pass


@pytest.fixture
def filled(make_cache: CacheMaker) -> Cache:
    """Two tars, of which each was extended by draws."""
    make_cache.fill(identity(draws=2))
    return make_cache.fill(identity(), extend=True)


def changed(tar: TarIdentity) -> Identity:
    fields = dict(identity().fields)
    fields["corpus.tars"] = [tar.entry if each["name"] == tar.name else each for each in fields["corpus.tars"]]
    return Identity(fields)


def stop(*_: Any) -> None:
    raise BrokenOffError


@pytest.mark.slow
def test_a_replaced_tar_is_made_again_and_the_others_stay(make_cache: CacheMaker, filled: Cache) -> None:
    before, store = content(filled), store_of(filled, "b")
    assert replace_tar(filled.directory, NEW_A) == 4
    cache = Cache(filled.directory, Cache.open(filled.directory, partial=True).manifest)
    assert cache.identity.tars["a"] == NEW_A and [plan.tar for plan in cache.plan()] == ["a", "a"]
    with pytest.raises(ShardUnfinishedError):
        Cache.open(filled.directory)
    again = make_cache.fill(changed(NEW_A))
    assert content(again) == before and store_of(again, "b") == store
    assert audit(filled.directory).problems == []
    assert replace_tar(filled.directory, NEW_A) is None, "it is that file already"
    assert Cache.open(filled.directory).plan() == []


@pytest.mark.slow
@pytest.mark.parametrize("where", ["_publish", "clear_garbage", "_forget"])
def test_a_replacement_that_is_broken_off_is_ended_by_the_same_command(
    make_cache: CacheMaker, filled: Cache, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    before = content(filled)
    with monkeypatch.context() as patch:
        patch.setattr(tar_changes, where, stop)
        with pytest.raises(BrokenOffError):
            replace_tar(filled.directory, NEW_A)
    with pytest.raises(ShardUnfinishedError):
        Cache.open(filled.directory)
    replace_tar(filled.directory, NEW_A)
    assert content(make_cache.fill(changed(NEW_A))) == before
    assert audit(filled.directory).problems == []


@pytest.mark.slow
def test_a_retired_tar_is_gone_and_known_to_be(make_cache: CacheMaker, filled: Cache) -> None:
    write_certificate(filled.directory, Certificate("0" * 64, ["a/x", "b/y"], {}, 0.1, []))
    of_b = {name: found for name, found in content(filled).items() if name.startswith("b/")}
    assert retire_tar(filled.directory, "a") == 4
    cache = Cache.open(filled.directory)
    assert content(cache) == of_b and cache.identity.fields[RETIRED] == ["a"]
    assert not (filled.directory / "shards/a").exists()
    certificate = read_certificate(filled.directory)
    assert certificate is not None and certificate.samples == ["b/y"]
    assert audit(filled.directory).problems == []
    assert retire_tar(filled.directory, "a") == 0, "again: nothing is left to do"
    grown = make_cache.fill(identity(["b", "c"]), extend=True)
    assert grown.identity.fields[RETIRED] == ["a"] and set(grown.identity.tars) == {"b", "c"}


def test_a_retirement_that_is_broken_off(filled: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Location, "delete_tree", stop)
        with pytest.raises(BrokenOffError):
            retire_tar(filled.directory, "a")
    assert Cache.open(filled.directory).num_samples == 4, "a reader sees it no more"
    found = audit(filled.directory)
    assert [(each.kind, each.what) for each in found.problems] == [
        ("garbage", "left of a tar that was retired; `--repair` deletes it")
    ]
    repair(Cache.open(filled.directory), found)
    assert audit(filled.directory).problems == []
    assert retire_tar(filled.directory, "a") == 0


def test_what_cannot_be_changed(filled: Cache) -> None:
    for name in ("z", "../a", ""):
        with pytest.raises(CacheError, match=r"no such tar in the cache; expected a, b"):
            retire_tar(filled.directory, name)
        with pytest.raises(CacheError, match=r"no such tar in the cache; expected a, b"):
            replace_tar(filled.directory, replace(NEW_A, name=name))
    with (
        take(Location.parse(store_of(filled, "a")), "writing"),
        pytest.raises(LeaseHeldError, match="somebody is writing this shard"),
    ):
        retire_tar(filled.directory, "a")
    retire_tar(filled.directory, "a")
    with pytest.raises(CacheError, match="no other tar would be left"):
        retire_tar(filled.directory, "b")
    with pytest.raises(CacheError, match=r"got a, which was retired for good\. Give the file another name"):
        replace_tar(filled.directory, NEW_A)


def test_two_changes_at_the_same_time(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Cache(filled.directory, filled.manifest)
    retire_tar(filled.directory, "a")
    monkeypatch.setattr(tar_changes, "_open", lambda *_: stale)
    with pytest.raises(CacheError, match="the manifest was changed meanwhile"):
        retire_tar(filled.directory, "b")
    assert Cache.open(filled.directory).num_samples == 4


@pytest.mark.slow
def test_a_cache_without_a_kept_sample_binds_nobody(make_cache: CacheMaker) -> None:
    make_cache.rejected = {(tar, "p000"): set(make_cache.keys(tar, "24x32")) for tar in ("a", "b")}
    directory = make_cache.fill().directory
    other = identity(["b", "c"], draws=2, **{"teacher.unet": "1" * 64})
    with pytest.raises(IdentityError):
        Cache.create_or_resume(directory, other)
    cache, anew = create_or_begin_anew(directory, other)
    assert anew and cache.identity == other and [plan.tar for plan in cache.plan()] == ["b", "c"]
    assert not (directory / "shards/a").exists()
    make_cache.rejected = {}
    assert make_cache.fill(other).num_samples == 8 and audit(directory).problems == []
    with pytest.raises(IdentityError, match=r"teacher\.unet"):
        create_or_begin_anew(directory, identity())
    assert not create_or_begin_anew(directory, other)[1]


def test_a_cache_that_is_being_written_binds(make_cache: CacheMaker) -> None:
    cache = Cache.create_or_resume(make_cache.directory, identity())
    with take(cache.shard_dir("b") / "p000-1.zarr", "writing"), pytest.raises(IdentityError):
        create_or_begin_anew(cache.directory, identity(draws=1))
    assert create_or_begin_anew(cache.directory, identity(draws=1))[1]


def test_the_remedy_names_the_command(filled: Cache) -> None:
    with pytest.raises(IdentityError, match=r"again with `pea cache --replace a`\."):
        Cache.create_or_resume(filled.directory, changed(NEW_A))
    with pytest.raises(IdentityError, match=r"take a tar that is gone out with `pea cache --retire a`\."):
        Cache.create_or_resume(filled.directory, identity(["b"]))
    with pytest.raises(IdentityError, match=r"add tars, draws, blocks or attention queries with `pea cache --extend`"):
        Cache.create_or_resume(filled.directory, identity(["a", "b", "c"]))
