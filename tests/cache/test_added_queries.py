"""Attention queries that are added to a cache: which parts hold them, and what else must know of such a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_tools.inspect.diff import differences
from data_tools.run_status import cache_status
from pea.cache import Cache, Identity, PartPlan
from pea.cache.audit import audit, repair
from pea.cache.copying import copy_cache
from pea.cache.manifest import read_manifest
from pea.cache.takedown import remove_samples
from pea.cache.tar_changes import replace_tar
from pea.cache.totals import totals
from pea.corpus.tars import TarIdentity
from pea.errors import CacheError, IdentityError, ShardUnfinishedError
from pea.storage import Location
from tests.cache_helpers import CacheMaker, content, identity, store_of

pytestmark = pytest.mark.slow

KEPT = {"num_queries": 3, "dtype": "float16"}
Wanted = dict[str, Any] | None


def with_queries(attention: Wanted = KEPT, **changed: Any) -> Identity:
    return identity(**{**changed, "cache.attention": attention})


@pytest.fixture
def grown(make_cache: CacheMaker) -> Cache:
    """A cache that got queries after it was filled."""
    make_cache.fill(with_queries(None))
    return make_cache.fill(with_queries(), extend=True)


@pytest.fixture
def at_once(make_cache: CacheMaker) -> Cache:
    """One that had them from the start."""
    return CacheMaker(make_cache.directory.with_name("at_once")).fill(with_queries())


def test_a_part_of_queries_holds_them_and_the_text_states_alone(grown: Cache) -> None:
    kinds = {(plan.part, plan.kind, plan.before_queries) for plan in grown.manifest.parts}
    assert kinds == {("p000", "whole", True), ("p001", "queries", False)}
    first, added = grown.shards[0].parts
    names = {"queries/attn2", "text/encoder_hidden_states", "text/pooled_prompt_embeds"}
    assert {name for name in added.array_names("24x32") if not name.startswith(("keys/", "captions/"))} == names
    assert not names & set(first.array_names("24x32"))


def test_it_counts_as_one_that_had_them_from_the_start(grown: Cache, at_once: Cache) -> None:
    assert grown.identity.digest == at_once.identity.digest
    assert list(differences(grown.directory, at_once.directory)) == []
    mine, theirs = totals(grown), totals(at_once)
    for name in ("tars", "samples", "records", "caption_dropped", "timesteps", "languages"):
        assert mine[name] == theirs[name]
    assert mine["arrays"].keys() == theirs["arrays"].keys()
    status = cache_status(Location.parse(grown.directory))
    assert status is not None and status["parts"] == {"finished": 4, "all": 4} and status["records"] == 24


def test_parts_that_were_not_finished_before_get_none_when_they_are(make_cache: CacheMaker, at_once: Cache) -> None:
    cache = Cache.create_or_resume(make_cache.directory, with_queries(None))
    make_cache.write(cache, cache.part_plan("a", "p000"))
    half = Cache.create_or_resume(make_cache.directory, with_queries(), extend=True)
    make_cache.queries = True
    make_cache.write(half, half.part_plan("b", "p001"))
    with pytest.raises(ShardUnfinishedError, match="2 of 4 shards are not finished; got a/p001, b/p000"):
        Cache.open(make_cache.directory)
    assert Cache.open(make_cache.directory, partial=True).shards == []
    assert content(make_cache.fill(with_queries())) == content(at_once)


@pytest.mark.parametrize("part", ["p000", "p001"])
def test_a_damaged_part_is_found_and_made_again(make_cache: CacheMaker, grown: Cache, part: str) -> None:
    expected = content(grown)
    file = max((each for each in store_of(grown, "a", part).rglob("c/**/*") if each.is_file()), key=str)
    file.write_bytes(file.read_bytes()[:-1])
    found = audit(grown.directory)
    assert found.damaged_parts == [("a", part)] == repair(grown, found)
    assert content(make_cache.fill(with_queries())) == expected
    assert audit(grown.directory).problems == []


@pytest.mark.parametrize("before", [True, False])
def test_a_sample_that_was_taken_down_stays_out(make_cache: CacheMaker, before: bool) -> None:
    cache = make_cache.fill(with_queries(None))
    if before:
        remove_samples(cache, "a", ["a-24x32-1"])
    cache = make_cache.fill(with_queries(), extend=True)
    if not before:
        remove_samples(cache, "a", ["a-24x32-1"])
        cache = Cache.open(cache.directory)
    assert cache.shards[0].buckets["24x32"].keys == ["a-24x32-0", "a-24x32-2", "a-24x32-3"]
    assert [len(part.record.kept["24x32"]) for part in cache.shards[0].parts] == [3, 3]
    assert audit(cache.directory).problems == []


def test_a_tar_is_replaced_with_its_queries(make_cache: CacheMaker, grown: Cache) -> None:
    other, expected = TarIdentity("a", 8, "c" * 8), content(grown)
    assert replace_tar(Location.parse(grown.directory), other) == 4
    tars = [other.entry, grown.identity.tars["b"].entry]
    wanted = with_queries(**{"corpus.tars": tars})
    again = Cache.create_or_resume(make_cache.directory, wanted)
    assert [(plan.tar, plan.part) for plan in again.plan()] == [("a", "p000"), ("a", "p001")]
    assert content(make_cache.fill(wanted)) == expected


def test_it_is_copied(grown: Cache, tmp_path: Path) -> None:
    copy_cache(Location.parse(grown.directory), Location.parse(tmp_path / "copy"))
    assert content(Cache.open(tmp_path / "copy")) == content(grown)
    copy_cache(Location.parse(grown.directory), Location.parse(tmp_path / "zh"), languages=["zh"])
    chosen = Cache.open(tmp_path / "zh")
    assert "a/24x32/queries/attn2" in content(chosen) and audit(chosen.directory).problems == []


def test_releases_that_do_not_know_such_parts_say_that_they_do_not(
    grown: Cache, at_once: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And do not read the cache as one that has queries, and then miss them."""
    said = [json.loads(path.read_text())["format_version"] for path in sorted(Path(grown.directory).glob("*.json"))]
    assert sorted(said) == [1, 2]
    monkeypatch.setattr("pea.cache.manifest._READ", (1,))
    with pytest.raises(CacheError, match="another format version; expected 1; got 2"):
        read_manifest(grown.directory)
    assert read_manifest(at_once.directory).format_version == 1


@pytest.mark.parametrize(
    ("held", "wanted"), [(KEPT, {**KEPT, "num_queries": 4}), (KEPT, {**KEPT, "dtype": "int8"}), (KEPT, None)]
)
def test_queries_that_are_there_are_neither_changed_nor_lost(
    make_cache: CacheMaker, held: Wanted, wanted: Wanted
) -> None:
    make_cache.fill(with_queries(held))
    with pytest.raises(IdentityError, match=r"cache\.attention.*attention queries where there are none"):
        Cache.create_or_resume(make_cache.directory, with_queries(wanted), extend=True)


def test_who_wants_queries_of_a_cache_without_is_told_how(make_cache: CacheMaker) -> None:
    make_cache.fill(with_queries(None))
    with pytest.raises(IdentityError, match=r"has null, wanted .*or attention queries with `pea cache --extend`"):
        Cache.open(make_cache.directory, with_queries())


def test_the_content_of_what_was_there_stays_what_it_was(make_cache: CacheMaker) -> None:
    """Each part is bound to what it was made from: one from before the queries to an identity without them."""
    former = make_cache.fill(with_queries(None))
    before = former.part_digest(former.part_plan("a", "p000"))
    grown = Cache.create_or_resume(make_cache.directory, with_queries(), extend=True)
    assert grown.part_digest(grown.part_plan("a", "p000")) == before
    assert grown.part_digest(PartPlan("a", "p000", "whole", 0, 3, ("mid_block",))) != before
