"""Plain text for people: columns, sizes, counts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from pea.foreign_text import visible


def human_bytes(count: float) -> str:
    """``1234567`` -> ``1.2 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """`7 h 43 min`, `3 min 4 s`, `0.4 s`."""
    if 0 < seconds < 0.05:
        return "under 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def human_rate(count: float, seconds: float, unit: str = "") -> str:
    """`1,234 rows/s`, `2.3/s`, `12 rows/min`, `0.4/h`: a number that is not zero where something was done."""
    per_s = count / max(seconds, 1e-9)
    for factor, time in ((1, "s"), (60, "min"), (3600, "h")):
        if per_s * factor >= 1 or time == "h":
            number = f"{per_s * factor:,.0f}" if per_s * factor >= 10 else f"{per_s * factor:.2g}"
            return f"{number} {unit}/{time}" if unit else f"{number}/{time}"
    raise AssertionError


def score_cell(row: Mapping[str, Any], name: str) -> str:
    """A score of a sweep's row: its mean, and its standard deviation where there are seeds to take it of."""
    mean, spread = row["scores"][name]["mean"], row["scores"][name]["spread"]
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of text; numbers and what follows the first column are aligned to the right."""
    cells = [[visible(str(cell)) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def say(text: object, file: TextIO | None = None) -> None:
    """Print lines that hold other people's text (to ``file``, or stdout): what a terminal would obey is escaped."""
    print(visible(str(text), keep="\n"), file=file or sys.stdout)
