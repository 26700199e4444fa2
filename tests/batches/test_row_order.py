"""Every epoch visits every row once, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pea.batches.row_order import RowOrder, shuffled_turns


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    window=st.integers(1, 4),
    epoch=st.integers(0, 3),
    cut=st.integers(0, 40),
)
def test_each_row_once_and_any_part_alone(sizes: list[int], window: int, epoch: int, cut: int) -> None:
    order = RowOrder(sizes, window, 7, "8x8")
    rows = order.rows(epoch, 0, len(order))
    assert sorted(map(tuple, rows.tolist())) == [(p, r) for p, size in enumerate(sizes) for r in range(size)]
    fresh = RowOrder(sizes, window, 7, "8x8")
    assert np.array_equal(fresh.rows(epoch, cut, 1000), rows[cut:])


def test_epochs_seeds_and_names_differ() -> None:
    rows = RowOrder([50, 50], 2, 0, "8x8").rows(0, 0, 100)
    others = (RowOrder([50, 50], 2, 0, "8x8").rows(1, 0, 100), RowOrder([50, 50], 2, 1, "8x8").rows(0, 0, 100))
    assert not any(np.array_equal(rows, other) for other in others)
    assert not np.array_equal(rows, RowOrder([50, 50], 2, 0, "8x12").rows(0, 0, 100))


def test_a_window_holds_few_pieces() -> None:
    rows = RowOrder([10] * 20, 4, 0, "8x8").rows(0, 0, 200)
    assert all(len(set(rows[start : start + 40, 0].tolist())) == 4 for start in range(0, 200, 40))


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_schedule_takes_the_batches_of_each_bucket_in_their_order(counts: list[int], seed: int) -> None:
    names = [f"bucket {number}" for number in range(len(counts))]
    schedule = shuffled_turns(names, counts, np.random.default_rng(seed))
    taken = [schedule.at(position) for position in range(sum(counts))]
    for name, count in zip(names, counts, strict=True):
        assert [turn for bucket, turn in taken if bucket == name] == list(range(count))
    assert schedule.buckets.itemsize + schedule.turns.itemsize == 6
