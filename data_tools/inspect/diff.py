"""``pea inspect diff``: what differs between two caches, in identity and in content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pea.cache import Bucket, Cache, Shard
from pea.cache.identity import TARS
from pea.cache.model_fields import MISSING
from pea.plurals import count_of
from pea.storage.location import Location

_SAMPLES_AT_ONCE = 64


def differences(one: str | Path | Location, other: str | Path | Location) -> Iterator[str]:
    """One line per difference; however the rows were cut into parts and files."""
    first, second = Cache.open(one, partial=True), Cache.open(other, partial=True)
    left, right = first.identity.fields, second.identity.fields
    for name in dict.fromkeys((*left, *right)):
        if name != TARS:
            yield from _fields(f"identity {name}", left.get(name, MISSING), right.get(name, MISSING))
    yield from _tars(first, second)


def _fields(name: str, left: Any, right: Any) -> Iterator[str]:
    """One line for each value that differs, however deep inside."""
    if left == right:
        return
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            yield from _fields(f"{name}.{key}", left.get(key, MISSING), right.get(key, MISSING))
    else:
        yield f"{name}: {left} | {right}"


def _tars(first: Cache, second: Cache) -> Iterator[str]:
    left, right = ({shard.tar: shard for shard in cache.shards} for cache in (first, second))
    for tar in sorted(left.keys() | right.keys()):
        if tar not in left or tar not in right:
            yield f"{tar}: only in {(first if tar in left else second).directory}"
            continue
        if first.identity.tars_by_name[tar] != second.identity.tars_by_name[tar]:
            yield f"{tar}: made from different tars of that name"
        yield from _shards(left[tar], right[tar])


def _shards(one: Shard, other: Shard) -> Iterator[str]:
    for name in sorted(one.buckets.keys() | other.buckets.keys()):
        if name not in one.buckets or name not in other.buckets:
            yield f"{one.tar}/{name}: only in {'the first' if name in one.buckets else 'the second'}"
        else:
            yield from _buckets(f"{one.tar}/{name}", one.buckets[name], other.buckets[name])


def _buckets(place: str, one: Bucket, other: Bucket) -> Iterator[str]:
    for key in sorted(set(one.keys) ^ set(other.keys)):
        yield f"{place}/{key}: only in {'the first' if key in one.keys else 'the second'}"
    others = set(other.keys)
    common = [key for key in one.keys if key in others]
    for language in sorted(set(one.languages) | set(other.languages)):
        texts = [dict(zip(bucket.keys, bucket.captions(language), strict=True)) for bucket in (one, other)]
        changed = [key for key in common if texts[0][key] != texts[1][key]]
        if changed:
            yield f"{place}: {count_of(len(changed), 'caption')} in {language} changed, the first of {changed[0]}"
    for array in sorted(one.arrays.keys() ^ other.arrays.keys()):
        yield f"{place}/{array}: only in {'the first' if array in one.arrays else 'the second'}"
    for array in sorted(one.arrays.keys() & other.arrays.keys()):
        yield from _arrays(place, array, one, other, common)


def _arrays(place: str, array: str, one: Bucket, other: Bucket, common: list[str]) -> Iterator[str]:
    specs = (one.arrays[array], other.arrays[array])
    if (specs[0].dtype, specs[0].shape) != (specs[1].dtype, specs[1].shape):
        yield f"{place}/{array}: {specs[0].dtype}{list(specs[0].shape)} | {specs[1].dtype}{list(specs[1].shape)}"
        return
    counts = [1 if specs[0].level == "sample" else bucket.draws_per_sample for bucket in (one, other)]
    draws = min(counts)
    num_rows, first, largest = 0, "", 0.0
    for keys, starts in _runs(one, other, common):
        rows = [
            bucket.read([array], start * count, (start + len(keys)) * count)[array]
            for bucket, start, count in zip((one, other), starts, counts, strict=True)
        ]
        left, right = (each.reshape(len(keys), count, -1)[:, :draws] for each, count in zip(rows, counts, strict=True))
        differs = (left != right).any(2) if left.dtype.kind != "f" else ~_equal(left, right).all(2)
        if differs.any():
            num_rows += int(differs.sum())
            first = first or keys[int(differs.any(1).argmax())]
            if left.dtype.kind == "f":
                largest = max(largest, float(np.nanmax(np.abs(left.astype(np.float64) - right), initial=0.0)))
    if num_rows:
        much = f", by up to {largest:.3g}" if largest else ""
        yield f"{place}/{array}: {num_rows} of {len(common) * draws} rows differ{much}, the first of {first}"


def _equal(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where two arrays of floats hold the same; what is no number in both is the same."""
    same: npt.NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _runs(one: Bucket, other: Bucket, common: list[str]) -> Iterator[tuple[list[str], tuple[int, int]]]:
    """Common keys that follow each other in both, some at a time, and the first one's row in each."""
    places = [{key: row for row, key in enumerate(bucket.keys)} for bucket in (one, other)]
    keys: list[str] = []
    start = (0, 0)
    for key in common:
        row = (places[0][key], places[1][key])
        if keys and (row != (start[0] + len(keys), start[1] + len(keys)) or len(keys) == _SAMPLES_AT_ONCE):
            yield keys, start
            keys = []
        if not keys:
            start = row
        keys.append(key)
    if keys:
        yield keys, start
