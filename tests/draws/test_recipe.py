"""Draws: golden values, independence of everything but the key, and the right distributions."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pea.draws import normal as n
from pea.draws import recipe as d

RECIPE = d.DrawRecipe(seed=7, caption_drop_rate=0.1, num_train_timesteps=1000)
ids = st.text(min_size=1, max_size=30)


def test_golden_values() -> None:
    """These never change: a cache of years ago must be readable with today's code."""
    got = d.draws(RECIPE, "tar-000/一只猫", 0, 8)
    assert got.timestep.tolist() == GOLDEN_TIMESTEPS
    assert d.draws(d.DrawRecipe(7, 0.5, 1000), "a/b", 0, 8).caption_dropped.tolist() == GOLDEN_DROPPED
    values = d.noise(RECIPE, "tar-000/一只猫", 3, (2, 3))
    assert [float(v).hex() for v in values.ravel()] == GOLDEN_NOISE
    assert d.checksum(d.noise(RECIPE, "a/b", 0, (4, 64, 64))) == GOLDEN_CHECKSUM
    assert d.checksum(d.latent_noise(RECIPE, "a/b", 0, (4, 64, 64))) == GOLDEN_LATENT_CHECKSUM
    assert d.record_id("a/b", 3) == GOLDEN_RECORD_ID


GOLDEN_TIMESTEPS = [85, 703, 321, 939, 557, 175, 793, 411]
GOLDEN_DROPPED = [True, True, False, False, True, True, False, False]
GOLDEN_NOISE = [
    "0x1.712c740000000p-1",
    "-0x1.cf326a0000000p-2",
    "0x1.2c26240000000p+1",
    "0x1.92b9660000000p-1",
    "0x1.085c040000000p-1",
    "-0x1.58fa120000000p-3",
]
GOLDEN_CHECKSUM = 4205342608
GOLDEN_LATENT_CHECKSUM = 2371144531
GOLDEN_RECORD_ID = 8150619592276903346


@given(ids, st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_a_draw_does_not_depend_on_the_range_it_is_asked_in(sample_id: str, a: int, b: int, c: int) -> None:
    start, middle, stop = sorted((a, b, c))
    whole = d.draws(RECIPE, sample_id, 0, stop)
    left, right = d.draws(RECIPE, sample_id, start, middle), d.draws(RECIPE, sample_id, middle, stop)
    assert np.array_equal(np.concatenate([left.timestep, right.timestep]), whole.timestep[start:])
    dropped = np.concatenate([left.caption_dropped, right.caption_dropped])
    assert np.array_equal(dropped, whole.caption_dropped[start:])


@given(st.lists(st.tuples(ids, st.integers(0, 9)), min_size=1, max_size=6), st.randoms())
@settings(max_examples=25)
def test_noise_does_not_depend_on_batch_or_order(records: list[tuple[str, int]], random: object) -> None:
    shape = (3, 3, 5)
    shuffled = list(records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    batch = d.noise_batch(RECIPE, [r[0] for r in shuffled], [r[1] for r in shuffled], shape)
    latent = d.latent_noise_batch(RECIPE, [r[0] for r in shuffled], [r[1] for r in shuffled], shape)
    for row, (sample_id, draw) in enumerate(shuffled):
        assert np.array_equal(batch[row], d.noise(RECIPE, sample_id, draw, shape))
        assert np.array_equal(latent[row], d.latent_noise(RECIPE, sample_id, draw, shape))
        assert not np.array_equal(batch[row], latent[row])


def test_everything_in_the_key_changes_the_noise() -> None:
    other_seed = d.DrawRecipe(8, 0.1, 1000)
    seen = {
        d.checksum(noise)
        for noise in (
            d.noise(RECIPE, "a/b", 0, (8,)),
            d.noise(RECIPE, "a/b", 1, (8,)),
            d.noise(RECIPE, "a/c", 0, (8,)),
            d.noise(other_seed, "a/b", 0, (8,)),
            d.latent_noise(RECIPE, "a/b", 0, (8,)),
        )
    }
    assert len(seen) == 5


@pytest.mark.parametrize("num_draws", [1, 4, 10, 64])
def test_timesteps_are_stratified(num_draws: int) -> None:
    """The largest gap between the draws of one sample stays near T / K (three-gap theorem)."""
    for sample in range(50):
        steps = np.sort(d.draws(RECIPE, f"s/{sample}", 0, num_draws).timestep)
        assert steps[0] >= 0 and steps[-1] < 1000
        gaps = np.diff(np.append(steps, steps[0] + 1000))
        assert gaps.max() <= 2.7 * 1000 / num_draws + 1


def test_timesteps_are_uniform() -> None:
    steps = np.concatenate([d.draws(RECIPE, f"s/{sample}", 0, 4).timestep for sample in range(3000)])
    counts = np.bincount(steps // 50, minlength=20)
    expected = steps.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-squared, 19 degrees of freedom: p < 0.001


def test_caption_drop_rate() -> None:
    dropped = np.concatenate([d.draws(RECIPE, f"s/{sample}", 0, 4).caption_dropped for sample in range(5000)])
    assert abs(dropped.mean() - 0.1) < 4 * math.sqrt(0.09 / dropped.size)
    assert not d.draws(d.DrawRecipe(0, 0.0, 10), "s", 0, 50).caption_dropped.any()
    assert d.draws(d.DrawRecipe(0, 1.0, 10), "s", 0, 50).caption_dropped.all()


def test_noise_is_standard_normal() -> None:
    values = np.sort(d.noise(RECIPE, "s/0", 0, (200_000,)).astype(np.float64))
    assert abs(values.mean()) < 4 / math.sqrt(values.size)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / values.size)
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in values[::100]])
    assert np.abs(cdf - np.arange(0, values.size, 100) / values.size).max() < 1.95 / math.sqrt(values.size)


def test_quantile_is_accurate() -> None:
    normal = statistics.NormalDist()
    words = np.array([0, 1, 2**31, 2**32 - 1, 12345, 2**63, 2**64 - 1, 3 << 40], dtype=np.uint64)
    halves = [half for word in words.tolist() for half in (word & 0xFFFFFFFF, word >> 32)]
    expected = [normal.inv_cdf((half + 0.5) / 2**32) for half in halves]
    assert np.allclose(d.standard_normal(words, 16), expected, rtol=1e-6, atol=0)
    x = np.concatenate([np.geomspace(1e-12, 1.0, 1000), np.linspace(0.3, 3, 1000)])
    assert np.allclose(n._log(x), np.log(x), rtol=4e-16, atol=2e-16)


def test_same_bits_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from pea.draws import recipe as d; r = d.DrawRecipe(7, 0.1, 1000);"
        "print(d.checksum(d.noise(r, 'a/b', 0, (4, 64, 64))), d.record_id('a/b', 3))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "123"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert out.stdout.split() == [str(GOLDEN_CHECKSUM), str(GOLDEN_RECORD_ID)]


def test_record_ids() -> None:
    got = d.record_ids(["a", "a", "b"], [0, 1, 0])
    assert got.dtype == np.uint64
    assert got.tolist() == [d.record_id("a", 0), d.record_id("a", 1), d.record_id("b", 0)]
    assert len(set(got.tolist())) == 3


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="not a range"):
        d.draws(RECIPE, "a", 3, 2)
