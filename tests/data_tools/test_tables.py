"""Numbers for people."""

from __future__ import annotations

import pytest

from data_tools.tables import human_rate, human_seconds


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"), (0.04, "under 0.1 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.7, "1 min 0 s"), (184, "3 min 4 s"),
        (3600, "1 h 0 min"), (27_780, "7 h 43 min"), (4_000_000, "1,111 h 6 min"),
    ],
)  # fmt: skip
def test_times(seconds: float, shown: str) -> None:
    assert human_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("count", "seconds", "said"),
    [
        (12_340, 10, "1,234/s"),
        (9.6, 1, "9.6/s"),
        (23, 10, "2.3/s"),
        (1, 1, "1/s"),
        (1, 5, "12/min"),
        (1, 50, "1.2/min"),
        (1, 600, "6/h"),
        (1, 1_000_000, "0.0036/h"),
    ],
)
def test_a_rate_is_never_nothing_a_second(count: float, seconds: float, said: str) -> None:
    assert human_rate(count, seconds) == said


def test_a_rate_has_a_unit() -> None:
    assert human_rate(4, 1, "rows") == "4 rows/s" and human_rate(30, 100, "records") == "18 records/min"
