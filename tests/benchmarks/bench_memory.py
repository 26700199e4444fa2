"""Resident memory of the batch reader: against the number of records in the cache, and over many steps.

    python -m tests.benchmarks.bench_memory            (10, 300 and 1,200 shards, 300 steps)
    python -m tests.benchmarks.bench_memory --full     (10, 1,000 and 10,000 shards, 5,000 steps)

A shard has 256 samples with 3 draws and a caption each, as in the small world. One is written; the others have a
completion record of their own and a link to its arrays, so that what a record's noise must be is not checked. A process
of its own opens each cache, goes through its captions as the trainer does, and reads batches of 64 in a window of half
a megabyte, ahead by a thread. Memory is that of the whole process, torch included, less what it had before the cache
was opened. A median of several processes, sizes in turn.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import harness
from tests.benchmarks.bench_growth import make_cache

SAMPLES_PER_SHARD, DRAWS = 256, 3
_TASK = """
import gc, json, os, sys
import torch
from pea.batches import dataset
from pea.cache import Cache
from pea.batches.text_states import TextStates
from tests.cache_helpers import RECIPE

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

folder, steps = sys.argv[1], int(sys.argv[2])
dataset._check_noise = lambda *_: None
torch.set_num_threads(1)
found = [resident()]
plan = dataset.BatchPlan(64, 0.0, 0)
cache = Cache.open(folder)
data = dataset.TrainingData(cache, None, plan, RECIPE, 1.0, ("mid_block",), ("en",), window_bytes=1 << 19)
states = TextStates(lambda texts: (torch.zeros(len(texts), 64),), data.captions("en"), max_bytes=1 << 16)
found.append(resident())
for step, batch in enumerate(dataset.prefetch(data.batch, range(steps), 1), 1):
    states(batch.native_captions)
    if step in (steps // 10, steps // 2, steps):
        found.append(resident())
print(json.dumps([data.num_records, *(each - found[0] for each in found[1:])]))
"""
POINTS = ("opened", "after 1/10 of the steps", "after half", "after all")


def measure(folder: Path, sizes: list[int], steps: int, rounds: int) -> dict[int, dict[str, list[int]]]:
    """Number of shards -> records, and bytes at each point, round by round."""
    found: dict[int, dict[str, list[int]]] = {size: {name: [] for name in ("records", *POINTS)} for size in sizes}
    for size in sizes:
        make_cache(folder / str(size), size, SAMPLES_PER_SHARD)
    for number in range(rounds):
        for size in sizes[:: -1 if number % 2 else 1]:
            command = [sys.executable, "-c", _TASK, str(folder / str(size)), str(steps)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for name, value in zip(found[size], json.loads(answer), strict=True):
                found[size][name].append(value)
    return found


def summary(found: dict[int, dict[str, list[int]]]) -> str:
    """The table, and what a shard and a record add."""
    medians = {size: {name: statistics.median(each) for name, each in one.items()} for size, one in found.items()}
    rows = [
        [size, f"{one['records']:,.0f}", *(f"{one[name] / 1e6:.1f}" for name in POINTS)]
        for size, one in medians.items()
    ]
    text = harness.table(["shards", "records", *(f"MB, {name}" for name in POINTS)], rows)
    (less, few), (more, many) = list(medians.items())[-2:]
    added, records = many["after all"] - few["after all"], many["records"] - few["records"]
    each = f"{added / (more - less):.0f} bytes a shard, {added / records:.1f} a record"
    return f"{text}\nFrom {less} to {more} shards: {each}.\n"


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "memory")
    parser.set_defaults(rounds=None)
    parser.add_argument("--shards", type=int, nargs="+", help="numbers of shards, ascending, two or more")
    parser.add_argument("--steps", type=int, help="batches to read (default: 300; 5,000 with --full)")
    arguments = parser.parse_args(argv)
    sizes = arguments.shards or ([10, 1000, 10_000] if arguments.full else [10, 300, 1200])
    steps = arguments.steps or (5000 if arguments.full else 300)
    rounds = arguments.rounds or (5 if arguments.full else 1)  # memory hardly varies from process to process
    with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
        found = measure(Path(folder), sizes, steps, rounds)
    result: dict[str, Any] = {"steps": steps, "bytes": {str(size): each for size, each in found.items()}}
    harness.publish(arguments.out, summary(found), result, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
