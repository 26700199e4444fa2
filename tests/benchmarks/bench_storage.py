"""Reading and writing the same records: this cache against what one would pick instead, side by side.

    python -m tests.benchmarks.bench_storage
    python -m tests.benchmarks.bench_storage --full        (the sizes of docs/results)

A record is a dozen arrays, 60 KB or 2 MB together. Reading gives shuffled batches of 32 as torch tensors, an epoch
per measurement, opening included, with 0, 1 and 2 workers (for the cache: batches read ahead by a thread). Cold: the
operating system is asked to forget the files first. The cache checks a crc32c of every chunk; the others check
nothing. Writing ends when the files are synced to the disk; for the cache, when they are digested and published too.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count as count_up
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pea.batches.dataset import prefetch
from pea.batches.opening import open_rows
from pea.batches.rows import CacheRows, stack
from pea.cache import ArraySpec, Cache, ShardSchema, ShardWriter, base_arrays
from pea.sketch.sketch import from_numpy
from pea.storage.durable import fsync_tree
from pea.storage.local_copies import LocalCopies
from tests.benchmarks import harness
from tests.benchmarks.stores import OTHERS
from tests.benchmarks.stores_base import Batches, Records, Store
from tests.cache_helpers import identity

_BATCH = 32
_BLOCKS = tuple(f"block{number}" for number in range(4))
_LATENTS = {60_000: (4, 16, 16), 2_000_000: (4, 64, 64)}
_TARS = tuple("abcd")


class PeaCache(Store):
    """This project's cache: one shard per tar, four of them."""

    name = "pea cache"

    def write(self, records: Records) -> None:
        identity_ = identity(_TARS, draws=1, blocks=_BLOCKS)
        cache = Cache.create_or_resume(self.folder / "cache", identity_)
        ends = [len(records["timestep"]) * (number + 1) // len(_TARS) for number in range(len(_TARS))]
        levels = {spec.name: spec.level for spec in _specs(records)}
        for plan, first, end in zip(cache.plan(), [0, *ends], ends, strict=False):
            with ShardWriter(cache, plan.tar, plan.part, ShardSchema(1, (), {"b": _specs(records)})) as writer:
                for start in range(first, end, _BATCH):
                    stop = min(start + _BATCH, end)
                    rows = {
                        level: {name: values[start:stop] for name, values in records.items() if levels[name] == level}
                        for level in ("sample", "record")
                    }
                    keys = [f"{number:07d}" for number in range(start, stop)]
                    captions: list[dict[str, str]] = [{}] * len(keys)
                    writer.append("b", keys=keys, captions=captions, samples=rows["sample"], records=rows["record"])
                writer.finish()

    copies: LocalCopies | None = None
    """Where rows of a bucket are kept."""

    def batches(self, batch_size: int, workers: int) -> Batches:
        cache = Cache.open(self.folder / "cache", copies=self.copies)
        rows = open_rows(cache, _BLOCKS, (), 0, 512 << 20)["b"]
        fetch = partial(self._batch, rows, batch_size)
        return prefetch(fetch, range(-(-len(rows) // batch_size)), workers)  # type: ignore[arg-type, return-value]

    @staticmethod
    def _batch(rows: CacheRows, batch_size: int, index: int) -> dict[str, torch.Tensor]:
        chosen = rows.read(0, index * batch_size, min((index + 1) * batch_size, len(rows)))
        return {name: from_numpy(stack(chosen, name)) for name in chosen[0].arrays}


def _specs(records: Records) -> tuple[ArraySpec, ...]:
    latent = records["latents_mean"].shape[1:]
    features = [
        ArraySpec(name, "record", values.dtype.name, values.shape[1:], ("value",))
        for name, values in records.items()
        if name.startswith("features/")
    ]
    return (*base_arrays(latent, "float32", "float16"), *features)


def make_records(size_bytes: int, count: int) -> dict[str, np.ndarray]:
    """Random arrays as a cache has them, ``size_bytes`` a record."""
    random, latent = np.random.default_rng(0), _LATENTS[size_bytes]
    records: dict[str, np.ndarray] = {}
    for spec in base_arrays(latent, "float32", "float16"):
        values = random.standard_normal((count, *spec.shape), dtype=np.float32)
        records[spec.name] = (values if spec.dtype.startswith("float") else abs(values) * 300).astype(spec.dtype)
    used = sum(values[0].nbytes for values in records.values())
    length = (size_bytes - used) // len(_BLOCKS) // 2
    for block in _BLOCKS:
        records[f"features/{block}/values"] = random.standard_normal((count, length), dtype=np.float32).astype(
            "float16"
        )
    return records


def consume(batches: Batches, count: int) -> None:
    """Take every batch; no record may be missing."""
    taken = sum(len(batch["timestep"]) for batch in batches)
    assert taken == count, f"{taken} of {count} records"


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def stores(folder: Path, left_out: Sequence[str]) -> Iterator[Store]:
    """Every store that can be measured here, but those whose name is left out."""
    for kind in (PeaCache, *OTHERS):
        if kind.name in left_out or (kind.requires and importlib.util.find_spec(kind.requires) is None):
            continue
        place = folder / kind.__name__
        place.mkdir()
        yield kind(place)


def measure(
    size_bytes: int, count: int, rounds: int, folder: Path, left_out: Sequence[str] = ()
) -> dict[str, dict[str, list[float]]]:
    """What -> store -> records a second, round by round."""
    records = make_records(size_bytes, count)
    all_stores = list(stores(folder, left_out))

    former: list[Path] = []
    fresh = count_up()

    def clear() -> None:
        while former:
            shutil.rmtree(former.pop())

    def write(store: Store) -> None:
        former.append(store.folder)
        store.folder = store.folder.with_name(f"{type(store).__name__}-{next(fresh)}")
        store.folder.mkdir()
        store.write(records)
        fsync_tree(store.folder)

    def read(store: Store, workers: int) -> None:
        consume(store.batches(_BATCH, workers), count)

    writing: dict[str, Callable[[], object]] = {s.name: partial(write, s) for s in all_stores}
    found = {"write and sync": harness.interleave(writing, rounds, clear)}
    for workers in (0, 1, 2):
        able = [store for store in all_stores if store.forks or not workers]
        cases: dict[str, Callable[[], object]] = {s.name: partial(read, s, workers) for s in able}
        found[f"warm, {workers} workers"] = harness.interleave(cases, rounds)

    def cool() -> None:
        gc.collect()
        forget(folder)

    cold: dict[str, Callable[[], object]] = {s.name: partial(read, s, 0) for s in all_stores}
    found["cold, 0 workers"] = harness.interleave(cold, rounds, cool)
    return {what: {n: [count / s for s in seconds] for n, seconds in each.items()} for what, each in found.items()}


def main(argv: list[str] | None = None) -> int:
    """Measure both sizes and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "storage")
    parser.add_argument("--bytes", type=int, choices=tuple(_LATENTS), help="size of a record (default: both)")
    parser.add_argument("--records", type=int, help="number of records (default: by size)")
    parser.add_argument("--without", nargs="+", default=(), metavar="STORE", help="names of stores to leave out")
    arguments = parser.parse_args(argv)
    for kind in OTHERS:
        if kind.requires and importlib.util.find_spec(kind.requires) is None:
            print(f"left out: {kind.name} (not installed; pip install -e '.[bench]')", file=sys.stderr)
    counts = {60_000: 1024, 2_000_000: 64} if arguments.full else {60_000: 256, 2_000_000: 32}
    if arguments.bytes:
        counts = {arguments.bytes: arguments.records or counts[arguments.bytes]}
    result: dict[str, Any] = {}
    text = ""
    for size_bytes, count in counts.items():
        with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
            found = measure(size_bytes, count, arguments.rounds, Path(folder), arguments.without)
        result[str(size_bytes)] = {"records": count, "records_per_s": found}
        names = list(found["write and sync"])
        rows = [
            [name, *(harness.spread(each[name]) if name in each else "-" for each in found.values())] for name in names
        ]
        rows.sort(key=lambda row: -statistics.median(found["warm, 0 workers"][str(row[0])]))
        text += f"\nRecords of {size_bytes // 1000} KB ({count} of them), records/s: median (least-most)\n\n"
        text += harness.table(["store", *found], rows)
    harness.publish(arguments.out, text, result, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
