"""The attention queries and text states of a cache: grown, checked, compared and guarded like every other array."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_tools.inspect.diff import differences
from pea.cache import Cache
from pea.cache.audit import audit
from pea.cache.schema import QUERIES, TEXT_POOLED, TEXT_STATES
from pea.config import Config
from pea.config.cache import AttentionConfig
from pea.errors import IdentityError, ShardDamagedError
from tests.collect.test_collector import assert_same, collect, with_cache
from tests.tiny_setup import make_setup

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A small setup with queries; its cache has all draws of both tars."""
    setup = make_setup(tmp_path_factory.mktemp("queries"), "sdxl", num_samples=5)
    wanted = with_cache(setup, attention=AttentionConfig(num_queries=3, dtype="float32"), blocks=("mid_block",))
    wanted = wanted.model_copy(update={"run_dir": setup.run_dir.parent / "whole"})
    collect(wanted)
    return wanted


@pytest.fixture
def cache(config: Config, tmp_path: Path) -> Cache:
    """A copy of the cache that a test may spoil."""
    shutil.copytree(config.cache_dir("parallel"), tmp_path / "copy")
    return Cache.open(tmp_path / "copy")


def test_grown_by_tars_draws_and_blocks_it_equals_one_built_at_once(config: Config, tmp_path: Path) -> None:
    path = Path(config.corpora.parallel.tars[0]).parent / "parallel-1.tar"
    parallel = config.corpora.parallel.model_copy(update={"tars": (str(path),)})
    start = config.model_copy(
        update={"run_dir": tmp_path, "corpora": config.corpora.model_copy(update={"parallel": parallel})}
    )
    collect(with_cache(start, draws_per_sample=1, blocks=()))
    grown = collect(config.model_copy(update={"run_dir": tmp_path}), extend=True)
    assert {plan.kind for plan in grown.manifest.parts} == {"whole", "draws", "blocks"}
    assert_same(grown, Cache.open(config.cache_dir("parallel")))
    assert audit(grown.directory).problems == []


def test_added_to_a_cache_without_they_are_what_they_would_have_been(config: Config, tmp_path: Path) -> None:
    """The teacher reads the same tars again; nothing that was there is written again; every array is equal."""
    moved = config.model_copy(update={"run_dir": tmp_path})
    before = collect(with_cache(moved, attention=None))
    files = {path: path.read_bytes() for path in Path(before.directory).rglob("*") if path.is_file()}
    grown = collect(moved, extend=True)
    assert {plan.kind for plan in grown.manifest.parts} == {"whole", "queries"}
    assert_same(grown, Cache.open(config.cache_dir("parallel")))
    assert audit(grown.directory, tars=[*Path(config.teacher.folder).parent.glob("parallel-*.tar")]).problems == []
    assert {path: path.read_bytes() for path in files} == files


def test_other_queries_are_another_cache(config: Config) -> None:
    with pytest.raises(IdentityError, match=r"cache\.attention"):
        collect(with_cache(config, attention=AttentionConfig(num_queries=4, dtype="float32")), extend=True)


@pytest.mark.parametrize("array", [QUERIES, TEXT_STATES, TEXT_POOLED])
def test_damage_is_found_and_never_read(cache: Cache, array: str) -> None:
    path = next(path for path in Path(cache.directory).rglob(f"{array}/**/c/**/*") if path.is_file())
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    damaged = 0
    for shard in cache.shards:
        for bucket in shard.buckets.values():
            for name in (name for name in bucket.arrays if name.startswith(array)):
                try:
                    bucket.read([name], 0, bucket.num_samples)
                except ShardDamagedError:
                    damaged += 1
    assert damaged == 1
    (problem,) = audit(cache.directory).problems
    assert (problem.kind, problem.where) == ("damaged", str(path))


def test_missing_queries_and_texts_are_no_zeros(cache: Cache) -> None:
    for array in (QUERIES, TEXT_STATES):
        path = next(path for path in Path(cache.directory).rglob(f"{array}/**/c/**/*") if path.is_file())
        path.unlink()
    assert len(audit(cache.directory).problems) == 2


def test_diff_names_the_array_that_differs(config: Config, cache: Cache, tmp_path: Path) -> None:
    assert list(differences(cache.directory, config.cache_dir("parallel"))) == []
    other = collect(
        with_cache(
            config.model_copy(update={"run_dir": tmp_path}),
            attention=AttentionConfig(num_queries=3, dtype="float16"),
        )
    )
    lines = list(differences(cache.directory, other.directory))
    assert lines[0].startswith("identity cache.attention")
    assert any(TEXT_STATES in line for line in lines[1:]) and any(f"/{QUERIES}/" in line for line in lines[1:])
    assert not any("latents_mean" in line or "noise_pred" in line for line in lines)
