"""A shard of 1,000 records from the first row until it is durable: this tree's writer against a former one's.

    mkdir /tmp/former && git archive 65c143a pea | tar -x -C /tmp/former      (the last with a writer of its own)
    python -m tests.benchmarks.bench_writing --former /tmp/former
    python -m tests.benchmarks.bench_writing --former /tmp/former --full      (records of 2 MB as well: SDXL)

Without `--former`, this tree's alone. Each tree has a process of its own, which is started before the first round, and
writes a fresh cache in each. Seconds of the processor, all threads together, are told too: on a shared machine they are
the steadier figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks import harness

_SCRIPT = Path(__file__).with_name("write_shard.py")
_ROOT = Path(__file__).resolve().parents[2]
_RECORDS = 1000
Seconds = dict[str, list[float]]


class Tree:
    """A process that writes shards with one tree's code."""

    def __init__(self, tree: Path, size_bytes: int, count: int, folder: Path, stack: ExitStack) -> None:
        command = [sys.executable, str(_SCRIPT), str(size_bytes), str(count), str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
        self._process = stack.enter_context(
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert self._process.stdin is not None
        stack.callback(self._process.stdin.close)
        self.cpu_seconds: list[float] = []
        self.seconds: list[float] = []
        assert self._line() == "ready", tree

    def write(self) -> None:
        """A shard; the seconds are noted."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found = json.loads(self._line())
        self.seconds.append(found["seconds"])
        self.cpu_seconds.append(found["cpu_seconds"])

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def measure(trees: dict[str, Path], size_bytes: int, count: int, rounds: int, folder: Path) -> tuple[Seconds, Seconds]:
    """Seconds by the clock and of the processor of each tree in each round."""
    with ExitStack() as stack:
        writers = {
            name: Tree(tree, size_bytes, count, folder / str(number), stack)
            for number, (name, tree) in enumerate(trees.items())
        }
        harness.interleave({name: writer.write for name, writer in writers.items()}, rounds)
    # The first round is not counted.
    clock = {name: writer.seconds[1:] for name, writer in writers.items()}
    return clock, {name: writer.cpu_seconds[1:] for name, writer in writers.items()}


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser = harness.parser(__doc__, "writing")
    parser.add_argument("--former", type=Path, help="folder with the pea/ of another commit")
    parser.add_argument("--records", type=int, default=_RECORDS, help=f"of the shard (default: {_RECORDS})")
    arguments = parser.parse_args(argv)
    trees = {"this writer": _ROOT} | ({"former writer": arguments.former.resolve()} if arguments.former else {})
    result: dict[str, Any] = {}
    rows = []
    for size_bytes in (60_000, 2_000_000) if arguments.full else (60_000,):
        with tempfile.TemporaryDirectory(prefix="pea-bench-") as folder:
            clock, cpu = measure(trees, size_bytes, arguments.records, arguments.rounds, Path(folder))
        result[str(size_bytes)] = {"records": arguments.records, "seconds": clock, "cpu_seconds": cpu}
        for name in trees:
            against = trees if name == "this writer" and len(trees) == 2 else ()
            ratios = [
                f"{harness.ratio(each[name], each['former writer']):.2f}" if against else "-" for each in (clock, cpu)
            ]
            rows.append(
                [f"{size_bytes // 1000} KB", name, *(harness.spread(each[name]) for each in (clock, cpu)), *ratios]
            )
    head = ["record", "writer", "seconds", "of the processor", "times the former's", "of the processor"]
    harness.publish(arguments.out, harness.table(head, rows), result, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
