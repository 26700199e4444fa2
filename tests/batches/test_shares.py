"""Shares of a batch's rows hold over the run, whatever the batch size and the number of processes."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pea.batches.shares import BucketShare, bucket_shares

SIZES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5000), max_size=4)


def rows(share: BucketShare, number: int) -> tuple[int, int]:
    (first, second), (third, fourth) = share.before(number), share.before(number + 1)
    return third - first, fourth - second


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_a_share_holds_over_the_run(batch_size: int, fraction: float) -> None:
    [share] = bucket_shares({"a": 10_000}, {"a": 300}, batch_size, fraction).values()
    batches = [rows(share, number) for number in range(1000)]
    assert all(sum(each) == batch_size and min(each) >= 0 for each in batches)
    assert abs(sum(culture for _, culture in batches) - 1000 * batch_size * fraction) < 1
    assert len({culture for _, culture in batches}) <= 2, "as even as can be"


def test_processes_and_accumulated_batches_share_the_numbers() -> None:
    [share] = bucket_shares({"a": 10_000}, {"a": 300}, 2, 0.25).values()
    alone = [rows(share, number) for number in range(240)]
    for world in (2, 3, 8):
        together = [rows(share, step * world + rank) for step in range(240 // world) for rank in range(world)]
        assert together == alone


def test_whole_numbers_of_rows_are_what_they_were() -> None:
    shares = bucket_shares({"a": 100, "b": 50}, {"a": 20, "b": 10}, 8, 0.25)
    assert {rows(share, number) for share in shares.values() for number in range(50)} == {(6, 2)}
    assert {name: share.batches_per_epoch for name, share in shares.items()} == {"a": 100 // 6, "b": 50 // 6}
    [alone] = bucket_shares({"a": 100}, {"b": 20}, 8, 1.0).values()
    assert alone == BucketShare(8, Fraction(1), 2)
    [none] = bucket_shares({"a": 100}, {}, 8, 0.25).values()
    assert none == BucketShare(8, Fraction(0), 12)


def test_culture_images_of_other_shapes_have_their_share() -> None:
    shares = bucket_shares({"square": 9000, "wide": 1000}, {"tall": 50, "wide": 50}, 10, 0.2)
    epoch = {name: share.rows_of_epoch for name, share in shares.items()}
    culture = {name: second for name, (_, second) in epoch.items()}
    assert sum(culture.values()) / sum(map(sum, epoch.values())) == pytest.approx(0.2, abs=0.001)
    assert culture["square"] == 0 and culture["tall"] == pytest.approx(culture["wide"], rel=0.01)


@given(SIZES.filter(bool), SIZES, st.integers(1, 64), st.sampled_from([0.0, 0.01, 0.25, 1 / 3, 0.99]))
def test_an_epoch_reads_no_record_twice(
    parallel: dict[str, int], culture: dict[str, int], batch_size: int, fraction: float
) -> None:
    for name, share in bucket_shares(parallel, culture, batch_size, fraction).items():
        for epoch in range(5):
            first = share.before(epoch * share.batches_per_epoch)[0]
            read = share.before((epoch + 1) * share.batches_per_epoch)[0] - first
            assert read <= parallel.get(name, 0) or share.batches_per_epoch == 1
        assert share.culture == 0 or name in culture
