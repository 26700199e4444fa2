"""Progress where nobody watches: a line now and then, with a rate and the time that is left."""

from __future__ import annotations

import io

import pytest

from stages.command import progress
from stages.command.console import Console
from stages.command.progress import StageProgress


def test_a_slow_start_has_no_rate_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with StageProgress(Console(file=file), "drawing", "images") as shown:
        for seconds, done in ((20.0, 0), (100.0, 2), (27_900.0, 50)):
            now[0] = seconds
            shown.update(done, 100, done)
    assert file.getvalue().splitlines() == [
        "  drawing: 0% 0 images",
        "  drawing: 2% 2 images, 1.2/min, 1 h 21 min left",
        "  drawing: 50% 50 images, 6.5/h, 7 h 45 min left",
    ]


def test_a_wait_without_a_first_unit_says_how_long_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = io.StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with StageProgress(Console(file=file), "parallel", "records") as shown:
        for seconds in (20.0, 60.0, 120.0):
            now[0] = seconds
            shown.update(0, None, 0)
    lines = file.getvalue().splitlines()
    assert lines[1:] == ["  parallel: 0 records, 1 min 0 s so far", "  parallel: 0 records, 2 min 0 s so far"]
