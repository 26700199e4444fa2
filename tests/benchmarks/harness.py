"""What all benchmarks share: interleaved rounds, medians, a markdown table, a JSON result with its circumstances."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pea.storage.durable import write_text


def interleave(
    cases: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], object] = gc.collect
) -> dict[str, list[float]]:
    """Seconds of each case in each round, after one round that is not counted; every second round runs backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, act in list(cases.items())[:: -1 if number % 2 else 1]:
            before()
            started = time.perf_counter()
            act()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the rounds' ratios: what is slow in one round is slow for both."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def spread(values: Sequence[float]) -> str:
    """`12.3 (11.9-12.8)`: median and extremes, to three digits."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    found.add_argument("--full", action="store_true", help="the sizes of the figures in docs/results")
    found.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    found.add_argument("--out", type=Path, default=Path("runs/bench") / f"{name}.json", help="where the result goes")
    return found


def publish(path: Path, text: str, result: Mapping[str, Any], load_before: float) -> None:
    """Print a table, and write the result as JSON with the machine that it was measured on."""
    argv = sys.orig_argv
    circumstances = {
        "command": " ".join(["python", *argv[argv.index("-m") :]] if "-m" in argv else sys.argv),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpus": os.cpu_count(),
        "load_before": round(load_before, 2),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"circumstances": circumstances, **result}, indent=1) + "\n")
    if load_before > 0.5:
        print(
            f"The load was {load_before:.1f} before the start: other programs ran; take these figures with caution.\n"
        )
    print(text)
    print(f"{path}")


def load() -> float:
    """Average number of runnable processes in the last minute."""
    return os.getloadavg()[0]
