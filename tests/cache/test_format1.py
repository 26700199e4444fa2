"""A cache that an earlier version wrote with its own encoder: read, checked, grown, repaired, taken down."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest
import zarr

from pea.cache import Cache
from pea.cache.audit import audit, repair
from pea.cache.takedown import remove_samples
from pea.cache.totals import totals
from tests.cache_helpers import CacheMaker, content, identity, store_of

DATA = Path(__file__).with_name("data")


@pytest.fixture
def old(tmp_path: Path) -> Cache:
    """Two tars of four samples with two draws, grown to three, and one sample taken down."""
    with tarfile.open(DATA / "format1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return Cache.open(tmp_path / "format1")


def digests(cache: Cache) -> dict[str, str]:
    found = {}
    for name, value in content(cache).items():
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def test_every_value_is_what_it_was(old: Cache, tmp_path: Path) -> None:
    assert digests(old) == json.loads((DATA / "format1.json").read_text("utf-8"))
    assert audit(old.directory).problems == []
    assert totals(old)["samples"] == 7


def test_the_new_writer_stores_the_same_values(old: Cache, tmp_path: Path) -> None:
    new = CacheMaker(tmp_path / "new").fill(identity(draws=2))
    array = "24x32/noise_pred"
    for name in (array, "24x32/captions/zh/bytes", "24x32/timestep"):
        one, other = (zarr.open_group(store_of(cache), mode="r")[name] for cache in (old, new))
        assert (one[:] == other[:]).all() and one.metadata == other.metadata  # type: ignore[union-attr, index]


@pytest.mark.slow
def test_it_grows(old: Cache) -> None:
    before = {path: path.read_bytes() for path in Path(old.directory, "shards").rglob("*") if path.is_file()}
    maker = CacheMaker(Path(old.directory))
    grown = maker.fill(identity(["a", "b", "c"], draws=4), extend=True)
    assert grown.num_samples == 11 and grown.draws_per_sample == 4
    assert audit(grown.directory).problems == []
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_it_is_repaired(old: Cache) -> None:
    expected = digests(old)
    next(store_of(old).rglob("noise_pred/c/0/0/0/0")).write_bytes(b"")
    assert repair(old, audit(old.directory)) == [("a", "p000")]
    again = CacheMaker(Path(old.directory)).fill(identity(draws=3))
    assert digests(again) == expected
    assert audit(again.directory).problems == []
    assert {path.name for path in Path(again.shard_dir("a")).glob("p000*")} == {"p000.2.json", store_of(again).name}


@pytest.mark.slow
def test_a_removal_clears_the_old_list_with_its_keys(old: Cache) -> None:
    assert b"b-24x32-2" in Path(old.directory, "removed.json").read_bytes()
    remove_samples(old, "a", ["a-24x32-0"])
    remove_samples(old, "b", [])
    assert audit(old.directory).problems == []
    assert Cache.open(old.directory).num_samples == 6
    files = [path for path in Path(old.directory).rglob("*") if path.is_file()]
    for key in (b"a-24x32-0", b"b-24x32-2"):
        assert not [path for path in files if key in path.read_bytes()]
