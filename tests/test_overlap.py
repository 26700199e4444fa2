"""Reading ahead and writing behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pea.overlap import Behind, ahead


def _failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError("the source broke")


def _pea_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pea-")]


def test_ahead_keeps_order() -> None:
    assert list(ahead(range(100), 3)) == list(range(100))


def test_ahead_raises_after_the_items_before_the_error() -> None:
    items, got = ahead(_failing(5), 3), []
    with pytest.raises(ValueError, match="the source broke"):
        got.extend(items)  # type: ignore[func-returns-value]
    assert got == [0, 1, 2, 3, 4]


def test_ahead_runs_ahead_but_not_further_than_asked() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    items = ahead(source(), 4)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert 5 <= len(made) <= 6, "four wait in the queue, one is in hand, one has been read"
    items.close()


def test_closing_ahead_ends_its_thread() -> None:
    items = ahead(range(1000), 2)
    next(items)
    items.close()
    assert _pea_threads() == []


def test_behind_uses_every_item_in_order() -> None:
    used: list[int] = []
    with Behind(used.append, 2) as behind:
        for number in range(50):
            behind.put(number)
    assert used == list(range(50))
    assert _pea_threads() == []


def test_behind_raises_on_leaving() -> None:
    with pytest.raises(ZeroDivisionError), Behind(lambda number: 1 // number, 10) as behind:
        behind.put(0)


def test_behind_raises_at_a_later_put_and_never_blocks() -> None:
    with pytest.raises(ZeroDivisionError), Behind(lambda number: 1 // number, 2) as behind:
        for _ in range(100):
            behind.put(0)
        pytest.fail("the error came too late")


def test_an_error_in_the_block_comes_first_and_cancels_what_waits() -> None:
    used: list[int] = []

    def slowly(number: int) -> None:
        time.sleep(0.05)
        used.append(number)

    with pytest.raises(KeyError), Behind(slowly, 100) as behind:
        for number in range(100):
            behind.put(number)
        raise KeyError("from the block")
    assert len(used) < 10
