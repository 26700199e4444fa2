"""Where the command ``pea`` begins: nothing is imported before an interruption can be answered in one line."""

from __future__ import annotations

import sys


def main() -> int:
    """Run ``pea``; returns the exit code."""
    try:
        from stages.cli import main as run
    except KeyboardInterrupt:
        print("pea: interrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
