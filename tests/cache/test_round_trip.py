"""Writer -> reader: what was appended is what is read, however it was cut; other zarr readers agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pea.cache import ArraySpec, Cache, ShardSchema, ShardWriter
from pea.cache.schema import decode_texts, encode_texts
from tests.cache_helpers import CacheMaker, identity, store_of, value_rows

DTYPES = ("float16", "float32", "int8", "uint8", "uint16", "int64", "uint64", "bool")
shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
specs = st.tuples(st.sampled_from(("sample", "record")), st.sampled_from(DTYPES), shapes)
texts = st.text(st.characters(codec="utf-8"), max_size=8)


@pytest.fixture
def make_cache(tmp_path: Path) -> CacheMaker:
    """Writes each cache anew: the writing is what is tested here."""
    return CacheMaker(tmp_path / "cache", anew=True)


@given(
    specs=st.lists(specs, min_size=1, max_size=4),
    batches=st.lists(st.integers(0, 5), max_size=5),
    draws=st.integers(0, 3),
    languages=st.dictionaries(st.sampled_from(("en", "zh", "pt-BR")), texts, max_size=3),
    rows_per_chunk=st.integers(1, 4),
    chunks_per_file=st.integers(1, 3),
    data=st.data(),
)
@settings(max_examples=25)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    specs: list[tuple[Any, str, tuple[int, ...]]],
    batches: list[int],
    draws: int,
    languages: dict[str, str],
    rows_per_chunk: int,
    chunks_per_file: int,
    data: st.DataObject,
) -> None:
    monkeypatch.setattr(ArraySpec, "rows_per_chunk", rows_per_chunk)
    monkeypatch.setattr(ArraySpec, "rows_per_file", rows_per_chunk * chunks_per_file)
    arrays = tuple(
        ArraySpec(f"x/{i}", level, dtype, shape, tuple(f"d{i}{j}" for j in range(len(shape))))
        for i, (level, dtype, shape) in enumerate(specs)
    )
    cache = Cache.create_or_resume(tmp_path_factory.mktemp("c"), identity(["a"], draws, ()))
    keys = [f"键{i}" for i in range(sum(batches))]
    expected = {
        s.name: value_rows(s, [f"{k}#{d}" for k in keys for d in range(draws if s.level == "record" else 1)])
        for s in arrays
    }
    with ShardWriter(cache, "a", "p000", ShardSchema(draws, (), {"8x8": arrays})) as writer:
        done = 0
        for count in batches:
            rows = {s.name: slice(done * _k(s, draws), (done + count) * _k(s, draws)) for s in arrays}
            writer.append(
                "8x8",
                keys=keys[done : done + count],
                captions=[languages] * count,
                samples={s.name: expected[s.name][rows[s.name]] for s in arrays if s.level == "sample"},
                records={s.name: expected[s.name][rows[s.name]] for s in arrays if s.level == "record"},
            )
            done += count
        record = writer.finish()
    assert record.num_samples == len(keys)
    opened = Cache.open(cache.directory)
    assert (opened.num_samples, opened.num_records) == (len(keys), len(keys) * draws)
    if not keys:
        assert opened.shards[0].buckets == {}
        return
    bucket = opened.shards[0].buckets["8x8"]
    assert bucket.keys == keys
    for language, text in languages.items():
        assert bucket.captions(language) == [text] * len(keys)
    assert bucket.captions("xx") == [""] * len(keys)
    for spec in arrays:
        total = len(keys) * _k(spec, draws)
        start = data.draw(st.integers(0, total))
        stop = data.draw(st.integers(start, total))
        got = bucket.read([spec.name], start, stop)[spec.name]
        assert got.dtype == np.dtype(spec.dtype)
        assert np.array_equal(got, expected[spec.name][start:stop])


def _k(spec: ArraySpec, draws: int) -> int:
    return draws if spec.level == "record" else 1


@given(st.lists(texts))
def test_texts_round_trip(values: list[str]) -> None:
    assert decode_texts(*encode_texts(values)) == values


@pytest.fixture
def store(make_cache: CacheMaker) -> tuple[Cache, Path]:
    cache = make_cache.fill()
    return cache, store_of(cache) / "24x32"


def test_plain_zarr_reads_the_same(store: tuple[Cache, Path]) -> None:
    import zarr

    bucket = store[0].shards[0].buckets["24x32"]
    group = zarr.open_group(store[1], mode="r")
    assert len(bucket.arrays) == 10
    for name, spec in bucket.arrays.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert np.array_equal(array[:], bucket.read([name], 0, array.shape[0])[name])
        assert array.metadata.dimension_names == (spec.level, *spec.dimension_names)
        assert array.attrs["source"]
    assert decode_texts(group["captions/zh/bytes"][:], group["captions/zh/offsets"][:]) == bucket.captions("zh")
    assert decode_texts(group["keys/bytes"][:], group["keys/offsets"][:]) == bucket.keys


@pytest.mark.filterwarnings("default")
def test_xarray_reads_the_same(store: tuple[Cache, Path]) -> None:
    import xarray

    bucket = store[0].shards[0].buckets["24x32"]
    with xarray.open_dataset(store[1], engine="zarr", consolidated=False, mask_and_scale=False) as dataset:
        assert dataset.sizes["sample"] == 4 and dataset.sizes["record"] == 12
        for name in ("latents_mean", "time_ids", "noise_pred", "timestep", "caption_dropped", "record_id"):
            assert np.array_equal(dataset[name].values, bucket.read([name], 0, dataset[name].shape[0])[name])
    path = store[1] / "features" / "mid_block"
    with xarray.open_dataset(path, engine="zarr", consolidated=False, mask_and_scale=False) as dataset:
        assert dataset["values"].dims == ("record", "channel", "height", "width")
        expected = bucket.read(["features/mid_block/values"], 0, 12)["features/mid_block/values"]
        assert np.array_equal(dataset["values"].values, expected)


def test_tensorstore_reads_the_same(store: tuple[Cache, Path]) -> None:
    import tensorstore

    bucket = store[0].shards[0].buckets["24x32"]
    for name in bucket.arrays:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store[1] / name)}}
        array = tensorstore.open(spec, open=True).result().read().result()
        assert np.array_equal(array, bucket.read([name], 0, array.shape[0])[name])


def test_reading_loads_neither_torch_nor_zarr(store: tuple[Cache, Path]) -> None:
    code = (
        f"from pea.cache import Cache; b = Cache.open({str(store[0].directory)!r}).shards[0].buckets['24x32'];"
        "b.read(['noise_pred'], 0, 3); import sys; print({'torch', 'zarr', 'ray', 'diffusers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
