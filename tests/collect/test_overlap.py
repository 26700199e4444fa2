"""Reading ahead and writing behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pea.collect.overlap import WriteBehind, map_in_threads, read_ahead


def _failing(count: int) -> Iterator[int]:
    yield from range(count)
    raise ValueError("the source broke")


def _pea_threads() -> list[str]:
    """Those of overlapping work; leases that other tests left, and the process' pool for buckets, have threads too."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("pea-") and not name.startswith(("pea-lease", "pea-fetch"))]


def test_ahead_keeps_order() -> None:
    assert list(read_ahead(range(100), 3)) == list(range(100))


def test_ahead_raises_after_the_items_before_the_error() -> None:
    items, got = read_ahead(_failing(5), 3), []
    with pytest.raises(ValueError, match="the source broke"):
        got.extend(items)  # type: ignore[func-returns-value]
    assert got == [0, 1, 2, 3, 4]


def test_ahead_runs_ahead_but_not_further_than_asked() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    items = read_ahead(source(), 4)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert 5 <= len(made) <= 6, "four wait in the queue, one is in hand, one has been read"
    items.close()


def test_closing_ahead_ends_its_thread() -> None:
    items = read_ahead(range(1000), 2)
    next(items)
    items.close()
    assert _pea_threads() == []


def test_behind_uses_every_item_in_order() -> None:
    used: list[int] = []
    with WriteBehind(used.append, 2) as behind:
        for number in range(50):
            behind.put(number)
    assert used == list(range(50))
    assert _pea_threads() == []


def test_behind_raises_on_leaving() -> None:
    with pytest.raises(ZeroDivisionError), WriteBehind(lambda number: 1 // number, 10) as behind:
        behind.put(0)


def test_behind_raises_at_a_later_put_and_never_blocks() -> None:
    with pytest.raises(ZeroDivisionError), WriteBehind(lambda number: 1 // number, 2) as behind:
        for _ in range(100):
            behind.put(0)
        pytest.fail("the error came too late")


def test_an_error_in_the_block_comes_first_and_cancels_what_waits() -> None:
    used: list[int] = []

    def slowly(number: int) -> None:
        time.sleep(0.05)
        used.append(number)

    with pytest.raises(KeyError), WriteBehind(slowly, 100) as behind:
        for number in range(100):
            behind.put(number)
        raise KeyError("from the block")
    assert len(used) < 10


@pytest.mark.parametrize("num_threads", [1, 3])
def test_side_by_side_keeps_the_order_of_the_items(num_threads: int) -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(map_in_threads(slow_at_first, range(20), num_threads)) == [number**2 for number in range(20)]


def test_side_by_side_uses_its_threads_and_takes_no_more_items_than_it_needs() -> None:
    together = threading.Barrier(2, timeout=5)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_in_threads(lambda number: together.wait() >= 0 and number, items(), 2)
    assert next(results) == 0
    assert len(taken) == 3, "two in hand, one that waits"
    together.abort()
    results.close()
    assert _pea_threads() == []


def test_side_by_side_raises_after_the_results_before_the_error() -> None:
    results, got = map_in_threads(lambda number: 6 // (3 - number), range(10), 2), []
    with pytest.raises(ZeroDivisionError):
        got.extend(results)  # type: ignore[func-returns-value]
    assert got == [2, 3, 6]
    assert _pea_threads() == []
