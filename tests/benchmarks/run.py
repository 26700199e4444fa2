"""Every benchmark, one after the other, each in a process of its own.

python -m tests.benchmarks.run            (quick form)
python -m tests.benchmarks.run --full --device cuda
"""

from __future__ import annotations

import argparse
import subprocess
import sys

NAMES = ("storage", "bucket", "writing", "packing", "growth", "memory", "caching", "training", "waiting", "attention")
_ON_DEVICE = ("caching", "training")


def commands(*, full: bool, device: str) -> list[list[str]]:
    """The command line of each benchmark."""
    found = []
    for name in NAMES:
        options = ["--full"] * full + (["--device", device] if name in _ON_DEVICE else [])
        found.append([sys.executable, "-m", f"tests.benchmarks.bench_{name}", *options])
    return found


def main(argv: list[str] | None = None) -> int:
    """Run all; the exit code is that of the last that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the sizes of the figures in docs/results")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args(argv)
    code = 0
    for command in commands(full=arguments.full, device=arguments.device):
        print(f"\n== {' '.join(command[1:])}\n", flush=True)
        code = subprocess.run(command, check=False).returncode or code
    return code


if __name__ == "__main__":
    sys.exit(main())
