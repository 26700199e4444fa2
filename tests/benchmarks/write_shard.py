"""Write one shard of made-up records each time that a line comes in, and say how many seconds it took.

Run by ``bench_writing`` as a script, with this tree or a former one on PYTHONPATH: it uses nothing of either but the
writer, whose interface has not changed.

    python write_shard.py BYTES RECORDS FOLDER
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from pea.cache import ArraySpec, Cache, Identity, ShardSchema, ShardWriter, base_arrays

_BATCH = 32
_BLOCKS = tuple(f"block{number}" for number in range(4))
_LATENTS = {60_000: (4, 16, 16), 2_000_000: (4, 64, 64)}


def arrays(size_bytes: int) -> tuple[tuple[ArraySpec, ...], dict[str, np.ndarray]]:
    """A record's arrays, ``size_bytes`` together, and the values of a batch."""
    random = np.random.default_rng(0)
    base = base_arrays(_LATENTS[size_bytes], "float32", "float16")
    used = sum(int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize for spec in base)
    length = (size_bytes - used) // len(_BLOCKS) // 2
    features = [ArraySpec(f"features/{block}/values", "record", "float16", (length,), ("value",)) for block in _BLOCKS]
    specs, values = (*base, *features), {}
    for spec in specs:
        drawn = random.standard_normal((_BATCH, *spec.shape), dtype=np.float32)
        values[spec.name] = (drawn if spec.dtype.startswith("float") else abs(drawn) * 300).astype(spec.dtype)
    return specs, values


def identity() -> Identity:
    """Of a cache with one tar."""
    return Identity(
        {
            "cache.seed": 0,
            "cache.caption_drop_rate": 0.1,
            "teacher.scheduler": {"num_train_timesteps": 1000},
            "teacher.unet": "0" * 64,
            "cache.buckets": [[24, 32]],
            "cache.draws_per_sample": 1,
            "cache.blocks": list(_BLOCKS),
            "cache.sketches": {block: {"kind": "exact"} for block in _BLOCKS},
            "corpus.tars": [{"name": "a", "size_bytes": 7, "sha256": "a" * 64}],
        }
    )


def write(folder: Path, specs: tuple[ArraySpec, ...], values: dict[str, np.ndarray], count: int) -> None:
    """From the first row until the shard is finished and durable."""
    cache = Cache.create_or_resume(folder, identity())
    (plan,) = cache.plan()
    levels = {spec.name: spec.level for spec in specs}
    with ShardWriter(cache, plan.tar, plan.part, ShardSchema(1, (), {"b": specs})) as writer:
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            rows = {
                level: {name: each[:size] for name, each in values.items() if levels[name] == level}
                for level in ("sample", "record")
            }
            keys = [f"{number:07d}" for number in range(start, start + size)]
            writer.append("b", keys=keys, captions=[{}] * size, samples=rows["sample"], records=rows["record"])
        writer.finish()


def main() -> None:
    specs, values = arrays(int(sys.argv[1]))
    folder = Path(sys.argv[3])
    print("ready", flush=True)
    for _ in sys.stdin:
        cpu, started = time.process_time(), time.perf_counter()
        write(folder, specs, values, int(sys.argv[2]))
        seconds = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
        shutil.rmtree(folder)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
