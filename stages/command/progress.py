"""Progress that a person can follow: a bar with rate and time left; without a terminal, a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_tools.tables import human_rate, human_seconds
from stages.command.console import Console

_LINE_EVERY_S = 15.0
_LONG_WAIT_S = 30.0
"""For a first unit, from which on a line says how long it has lasted."""


class StageProgress:
    """One bar; ``rate`` is counted from its start."""

    def __init__(self, console: Console, label: str, unit: str) -> None:
        self._console, self._label, self._unit = console, label, unit
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(label, total=None, detail="")

    def update(self, done: float, total: float | None, count: int, note: str = "") -> None:
        """``done`` of ``total`` is the length of the bar; ``count`` is how many units that is."""
        elapsed = time.monotonic() - self._started
        rate = f", {human_rate(count, elapsed)}" if count else ""
        unit = self._unit.removesuffix("s") if count == 1 else self._unit
        detail = f"{count:,} {unit}{rate}" + (f", {note}" if note else "")
        self._bar.update(self._task, completed=done, total=total, detail=detail)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            left = "" if not total or not done else f", {human_seconds(elapsed * max(0.0, total / done - 1))} left"
            share = "" if not total else f" {min(1.0, done / total):.0%}"
            waited = f", {human_seconds(elapsed)} so far" if not count and elapsed > _LONG_WAIT_S else ""
            self._console.print(f"  {self._label}:{share} {detail}{left}{waited}")

    def print(self, line: str) -> None:
        """A line above the bar."""
        self._bar.console.print(line)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
