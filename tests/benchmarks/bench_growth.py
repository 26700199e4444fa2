"""How opening, planning, `info` and `check` grow with the number of shards; the shards' metadata are made up.

    python -m tests.benchmarks.bench_growth            (10, 100 and 1,000 shards)
    python -m tests.benchmarks.bench_growth --full     (10, 1,000 and 100,000 shards; `rows` and `check` up to 1,000)
    python -m tests.benchmarks.bench_growth --shards 10000 --most-read 10000

One real shard is written; the others have a completion record of their own, and a link to its arrays. Each task runs
in a process of its own, so that its peak memory is its own; a median of several, in turn.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pea.cache import Cache
from pea.cache.completion import read_record, record_to_bytes
from tests.benchmarks import harness
from tests.cache_helpers import CacheMaker, identity

_TASK = """
import io, resource, sys, time
from contextlib import redirect_stdout
from pathlib import Path
from pea.cache import Cache
from pea.cache.audit import audit
from pea.batches.opening import open_rows
from stages.cli import main
folder, task = Path(sys.argv[1]), sys.argv[2]
started = time.perf_counter()
if task == "open":
    Cache.open(folder)
elif task == "plan":
    assert not Cache.open(folder).plan()
elif task == "info":
    with redirect_stdout(io.StringIO()):
        assert main(["inspect", "info", str(folder)]) == 0
elif task == "check":
    assert not audit(folder).problems
elif task == "rows":
    open_rows(Cache.open(folder), ("mid_block",), (), 0, 512 << 20)
seconds = time.perf_counter() - started
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def make_cache(folder: Path, num_shards: int, samples_per_shard: int = 4) -> None:
    """A cache whose shards all link to one."""
    tars = [f"{number:06d}" for number in range(num_shards)]
    # Without a scheduler in its identity, nothing says what a record's draws must be, and the links are not refused.
    maker = CacheMaker(folder, samples_per_tar=samples_per_shard)
    with patch("os.fsync"):
        cache = Cache.create_or_resume(folder, identity(tars, **{"teacher.scheduler": None}))
        first, *others = cache.manifest.parts
        maker.write(cache, first)
        record = read_record(cache.record_path(first))
        for plan in others:
            directory = cache.shard_dir(plan.tar)
            Path(directory).mkdir()
            Path(directory, record.store).symlink_to(Path(cache.shard_dir(first.tar), record.store))
            changed = {**record.summary, "tar": plan.tar, "content": cache.part_digest(plan)}
            cache.record_path(plan).write_bytes(record_to_bytes(replace(record, summary=changed)))


def measure(folder: Path, tasks: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Task -> seconds and megabytes, round by round; the first round warms up."""
    found: dict[str, dict[str, list[float]]] = {task: {"seconds": [], "megabytes": []} for task in tasks}
    for number in range(rounds + 1):
        for task in tasks:
            command = [sys.executable, "-c", _TASK, str(folder), task]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            if number:
                found[task]["seconds"].append(float(answer[-2]))
                found[task]["megabytes"].append(float(answer[-1]))
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "growth")
    parser.add_argument("--shards", type=int, nargs="+", help="numbers of shards")
    parser.add_argument("--most-read", type=int, default=1000, metavar="N", help="shards up to which all is read")
    arguments = parser.parse_args(argv)
    result: dict[str, Any] = {}
    rows = []
    for num_shards in arguments.shards or ([10, 1000, 100_000] if arguments.full else [10, 100, 1000]):
        with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
            make_cache(Path(folder), num_shards)
            tasks = ["open", "plan", "info"] + ["rows", "check"] * (num_shards <= arguments.most_read)
            found = result[str(num_shards)] = measure(Path(folder), tasks, arguments.rounds)
        for task, each in found.items():
            seconds = statistics.median(each["seconds"])
            memory = f"{statistics.median(each['megabytes']):.0f}"
            rows.append(
                [num_shards, task, harness.spread(each["seconds"]), f"{1e3 * seconds / num_shards:.3g}", memory]
            )
    text = harness.table(["shards", "task", "seconds", "ms a shard", "peak MB"], rows)
    harness.publish(arguments.out, text, json.loads(json.dumps(result)), load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
