"""Sketches: unbiased, the same on every device and in every batch, and stored as declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pea.config import SketchConfig
from pea.sketch.hash import mix, record_keys, signs, uniforms, words
from pea.sketch.sketch import PositionsMap, Sketch, from_numpy, make_sketch, to_numpy

SHAPE = (6, 4, 5)
CONFIGS: list[dict[str, Any]] = [
    {"kind": "exact", "dtype": "float32"},
    {"kind": "exact", "dtype": "float16"},
    {"kind": "exact", "dtype": "bfloat16"},
    *({"kind": "quantized", "values": v} for v in ("int8", "fp8_e4m3", "int4")),
    *({"kind": "positions", "fraction": 0.3, "values": v} for v in ("float32", "bfloat16", "int8", "int4")),
    *({"kind": "count", "ratio": 1.9, "values": v} for v in ("float32", "float16", "int8", "fp8_e4m3", "int4")),
    *({"kind": "fold", "ratio": 1.9, "values": v} for v in ("float32", "int8", "int4")),
]
ROUNDING = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def sketch_of(config: dict[str, Any], shape: tuple[int, int, int] = SHAPE, block: str = "mid_block") -> Sketch:
    return make_sketch(TypeAdapter(SketchConfig).validate_python(config), 3, block, shape)


def maps(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def record_ids(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 2**64, count, dtype=np.uint64)


def name(config: dict[str, Any]) -> str:
    return "-".join(str(value) for value in config.values())


@pytest.fixture(params=CONFIGS, ids=name)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_arrays_are_stored_as_declared(config: dict[str, Any]) -> None:
    sketch = sketch_of(config)
    stored = sketch.encode(maps(3), record_ids(3))
    assert set(stored) == set(sketch.arrays)
    for suffix, layout in sketch.arrays.items():
        array = to_numpy(stored[suffix])
        assert (array.dtype.name, array.shape) == (layout.dtype, (3, *layout.shape))
        assert len(layout.dimension_names) == len(layout.shape)
    back = {suffix: from_numpy(to_numpy(values)) for suffix, values in stored.items()}
    assert torch.equal(sketch.decode(back), sketch.decode(stored))
    assert sketch.decode(back).shape == (3, sketch.num_outputs) == sketch.project(maps(3), record_ids(3)).shape
    assert sketch.numel == 6 * 4 * 5
    assert sketch.finite(back).all()


def test_nothing_depends_on_the_batch(config: dict[str, Any]) -> None:
    sketch, features, ids = sketch_of(config), maps(5), record_ids(5)
    whole = sketch.encode(features, ids)
    order = [3, 0, 4]
    some = sketch.encode(features[order], ids[order])
    for suffix in ("values", "scale"):
        if suffix in whole:
            assert torch.equal(whole[suffix][order], some[suffix])
    projected = sketch.project(features[order], ids[order])
    assert torch.allclose(sketch.project(features, ids)[order], projected, rtol=1e-6, atol=1e-6)


def test_distance_is_unbiased(config: dict[str, Any]) -> None:
    """Mean over many records of the same pair of maps: within 4.5 standard errors of the distance."""
    count = 4000
    sketch, ids = sketch_of(config), record_ids(count)
    teacher, student = maps(1, seed=1), maps(1, seed=1) + 0.3 * maps(1, seed=2)
    teacher[0, 0] = 2.0  # a constant channel: bad luck for a sketch that is not random enough
    stored = sketch.encode(teacher.expand(count, -1, -1, -1), ids)
    got = sketch.squared_distance(student.expand(count, -1, -1, -1), stored, ids).double()
    expected = (student - teacher).double().square().sum()
    slack = ROUNDING.get(config.get("dtype") or config["values"], 1e-3) * expected
    assert abs(got.mean() - expected) < 4.5 * got.std() / count**0.5 + slack
    if "squared_norm" in stored:
        assert torch.allclose(stored["squared_norm"], teacher.square().sum().expand(count), rtol=1e-5)


def test_gradient_is_unbiased(config: dict[str, Any]) -> None:
    count = 4000
    sketch, ids = sketch_of(config), record_ids(count)
    teacher = maps(1, seed=1).expand(count, -1, -1, -1)
    student = (teacher + 0.3 * maps(1, seed=2)).requires_grad_()
    sketch.squared_distance(student, sketch.encode(teacher, ids), ids).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    gradient = student.grad.double()
    error = (gradient.mean(0) - 2 * (student - teacher).detach().double()[0]).abs()
    rounding = ROUNDING.get(config.get("dtype") or config["values"], 0.0)
    assert (error <= 5 * gradient.std(0) / count**0.5 + rounding * 8 + 1e-5).all()


@pytest.mark.parametrize("kind", ["count", "fold"])
def test_count_sketch_has_the_variance_of_theory(kind: str) -> None:
    """Var |Sx|^2 <= 2 |x|^4 / M for each x; equal to it, less the pairs that never meet, for a flat x."""
    sketch, count = sketch_of({"kind": kind, "ratio": 4, "values": "float32"}, (8, 8, 8)), 4000
    flat = torch.ones(1, 8, 8, 8)
    squares = sketch.project(flat.expand(count, -1, -1, -1), record_ids(count)).square().sum(1) / 512
    assert sketch.num_outputs == 128
    assert 0.6 * 2 / 128 < float(squares.var()) < 1.05 * 2 / 128


@pytest.mark.parametrize("kind", ["count", "fold"])
def test_other_records_blocks_and_seeds_get_other_maps(kind: str) -> None:
    config = {"kind": kind, "ratio": 2, "values": "float32"}
    features, ids = maps(1).expand(2, -1, -1, -1), record_ids(2)
    first = sketch_of(config).project(features, ids)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, sketch_of(config, block="up_blocks.0").project(features, ids))
    reseeded = make_sketch(TypeAdapter(SketchConfig).validate_python(config), 4, "mid_block", SHAPE)
    assert not torch.equal(first, reseeded.project(features, ids))


@given(st.integers(0, 2**64 - 1), st.integers(1, 9))
@settings(max_examples=30)
def test_words_are_splitmix64(seed: int, count: int) -> None:
    def reference(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    key = torch.from_numpy(np.array([seed], dtype=np.uint64).view(np.int64))
    assert int(mix(key).numpy().view(np.uint64)[0]) == reference(seed)
    assert words(key, "a", count).tolist()[0] == words(key, "a", 10).tolist()[0][:count]


def test_golden_words() -> None:
    """These never change: a cache of years ago must be readable with today's code."""
    keys = record_keys(np.array([1, 2**63 + 5], dtype=np.uint64), -7, torch.device("cpu"))
    assert keys.tolist() == GOLDEN_KEYS
    assert words(keys, "turns", 2).tolist() == GOLDEN_WORDS
    assert "".join("+" if s > 0 else "-" for s in signs(keys, 64)[1].tolist()) == GOLDEN_SIGNS
    assert [u.hex() for u in uniforms(keys, 5)[0].tolist()] == GOLDEN_UNIFORMS
    positions = PositionsMap((2, 4, 4), 0.25).positions(keys)
    assert positions.tolist() == GOLDEN_POSITIONS
    as_tensor = torch.from_numpy(np.array([1, 2**63 + 5], dtype=np.uint64))
    assert torch.equal(record_keys(as_tensor, -7, torch.device("cpu")), keys)


GOLDEN_KEYS = [-8712567848370274633, -1129042865241429355]
GOLDEN_WORDS = [[-7135709884231475576, -5063915498448632711], [6680388385767362191, -3089284628182952056]]
GOLDEN_SIGNS = "-+-++-++---++++-++---+---+-+---+--++-----+-+--++---++-++---+----"
GOLDEN_UNIFORMS = [
    "0x1.200f000000000p-1",
    "0x1.be8c000000000p-3",
    "0x1.2459000000000p-1",
    "0x1.948f000000000p-1",
    "0x1.1ce7000000000p-1",
]
GOLDEN_POSITIONS = [[8, 12, 14, 15], [7, 9, 10, 15]]


def test_signs_and_uniforms_are_fair() -> None:
    keys = record_keys(record_ids(50), 1, torch.device("cpu"))
    assert abs(float(signs(keys, 6400).mean())) < 4 / (50 * 6400) ** 0.5
    chances = uniforms(keys, 4000)
    assert abs(float(chances.mean()) - 0.5) < 4 / (12 * chances.numel()) ** 0.5
    assert float(chances.min()) > 0 and float(chances.max()) < 1


def test_positions_are_distinct_and_uniform() -> None:
    keys = record_keys(record_ids(3000), 1, torch.device("cpu"))
    positions = PositionsMap((1, 5, 4), 0.25).positions(keys)
    assert positions.shape == (3000, 5)
    assert (positions.diff(dim=1) > 0).all()
    counts = torch.bincount(positions.flatten(), minlength=20).double()
    assert float(((counts - 750).square() / 750).sum()) < 45


@pytest.mark.parametrize("values", ["int8", "fp8_e4m3", "int4"])
def test_quantized_extremes(values: str) -> None:
    features = torch.zeros(4, 2, 3, 3)
    features[0, 0] = 1e-42
    features[1] = torch.linspace(-3, 3, 18).view(2, 3, 3) * 1e38
    features[2, 1, 1, 1] = float("nan")
    features[3, 0, 0, 0] = float("inf")
    sketch = sketch_of({"kind": "quantized", "values": values}, (2, 3, 3))
    stored = sketch.encode(features, record_ids(4))
    assert torch.isfinite(sketch.decode(stored)[:2]).all()
    assert float(sketch.decode(stored)[1, 0]) == pytest.approx(-3e38, rel=1e-6)
    assert sketch.finite(stored)[2:].tolist() == [False, False]


def test_values_too_large_for_the_stored_type_are_found() -> None:
    sketch = sketch_of({"kind": "positions", "fraction": 1.0, "values": "float16"}, (1, 2, 2))
    stored = sketch.encode(torch.tensor([[[[1.0, 2], [3, 4]]], [[[1, 2], [3, 7e4]]]]), record_ids(2))
    assert sketch.finite(stored).tolist() == [True, False]


def test_half_precision_student_gets_gradients() -> None:
    student = maps(2).bfloat16().requires_grad_()
    sketch = sketch_of({"kind": "count", "ratio": 4, "values": "float16"})
    sketch.project(student, record_ids(2)).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None and student.grad.dtype == torch.bfloat16


def test_the_guess_of_a_feature_map_is_unbiased(config: dict[str, Any]) -> None:
    count = 2000
    sketch, ids, features = sketch_of(config), record_ids(count), maps(1)
    guess = sketch.back_project(sketch.encode(features.expand(count, -1, -1, -1), ids), ids)
    error = (guess.mean(0) - features[0]).abs()
    rounding = ROUNDING.get(config.get("dtype") or config["values"], 1e-4)  # a rare rounding may not occur at all
    assert (error <= 5 * guess.std(0) / count**0.5 + 4 * rounding + 1e-5).all()
    assert sketch.arrays["values"].attributes["feature_shape"] == list(SHAPE)
