"""One small cache, opened without our code by every library that reads zarr: the same values."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import xarray
import zarr

from pea.cache import Cache
from tests.cache_helpers import CacheMaker, identity, store_of

_BUCKET = "24x32"
_ZARRITA = Path(__file__).parents[2] / ".emulators/node_modules/zarrita/dist/src/index.js"
Arrays = dict[str, np.ndarray]


@pytest.fixture
def cache(make_cache: CacheMaker) -> Cache:
    return make_cache.fill(identity(["a"]))


def expected(cache: Cache) -> Arrays:
    """What our reader gives: floats, integers, booleans, compressed or not."""
    bucket = cache.shards[0].buckets[_BUCKET]
    found = {}
    for name, spec in bucket.arrays.items():
        rows = bucket.num_samples if spec.level == "sample" else bucket.num_records
        found[name] = bucket.read([name], 0, rows)[name]
    assert {values.dtype.kind for values in found.values()} == {"f", "i", "u", "b"} and len(found) > 8
    return found


def by_zarr(store: Path, names: list[str]) -> Arrays:
    group = zarr.open_group(store, mode="r")
    return {name: np.asarray(group[f"{_BUCKET}/{name}"][...]) for name in names}  # type: ignore[index]


def by_tensorstore(store: Path, names: list[str]) -> Arrays:
    found = {}
    for name in names:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store}/{_BUCKET}/{name}/"}}
        found[name] = np.asarray(tensorstore.open(spec, read=True).result().read().result())
    return found


def by_xarray(store: Path, names: list[str]) -> Arrays:
    found: Arrays = {}
    for name in names:
        group, _, variable = f"{_BUCKET}/{name}".rpartition("/")
        with xarray.open_zarr(store, group=group, consolidated=False, chunks=None, mask_and_scale=False) as data:
            assert data[variable].dims[0] in ("sample", "record")
            found[name] = data[variable].to_numpy()
    return found


def by_zarrita(store: Path, names: list[str]) -> Arrays:
    node = shutil.which("node")
    if node is None or not _ZARRITA.exists():
        pytest.skip("Node or zarrita is not installed (`make emulators`)")
    script = Path(__file__).with_name("zarrita_values.mjs")
    paths = [f"/{_BUCKET}/{name}" for name in names]
    done = subprocess.run(
        [node, str(script), str(_ZARRITA), str(store), *paths], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    found = {}
    for name, path in zip(names, paths, strict=True):
        values = np.frombuffer(bytes.fromhex(read[path]["hex"]), np.dtype(read[path]["dtype"]))
        found[name] = values.reshape(read[path]["shape"])
        assert read[path]["dimension_names"][0] in ("sample", "record")
    return found


@pytest.mark.parametrize("reader", [by_zarr, by_tensorstore, by_xarray, by_zarrita])
def test_others_read_the_same_values(cache: Cache, reader: Callable[[Path, list[str]], Arrays]) -> None:
    wanted = expected(cache)
    found = reader(store_of(cache), list(wanted))
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        assert np.array_equal(found[name], values), name


def test_they_see_values_that_were_changed(cache: Cache) -> None:
    """What is compared above is what is stored, not what our reader remembers."""
    wanted = expected(cache)
    group = zarr.open_group(store_of(cache), mode="r+")
    group[f"{_BUCKET}/timestep"][0] = 7777  # type: ignore[index]
    for reader in (by_zarr, by_tensorstore, by_xarray):
        found = reader(store_of(cache), ["timestep"])["timestep"]
        assert found[0] == 7777 and not np.array_equal(found, wanted["timestep"])
