"""Numbers for people."""

from __future__ import annotations

import pytest

from data_tools.tables import human_seconds


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.7, "1 min 0 s"), (184, "3 min 4 s"),
        (3600, "1 h 0 min"), (27_780, "7 h 43 min"), (4_000_000, "1,111 h 6 min"),
    ],
)  # fmt: skip
def test_times(seconds: float, shown: str) -> None:
    assert human_seconds(seconds) == shown
