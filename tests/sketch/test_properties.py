"""What every sketch promises, over shapes, ratios and stored types."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pea.config import SketchConfig
from pea.sketch.sketch import Sketch, from_numpy, make_sketch, to_numpy

STORED = ("float32", "float16", "bfloat16", "int8", "fp8_e4m3", "int4")
STEP = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2, "int8": 1 / 127, "fp8_e4m3": 1 / 8, "int4": 1 / 7}
"""Largest error of a stored value, over the largest value of its row."""

shapes = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))
ratios = st.floats(1.0, 40.0)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(("exact", "quantized", "positions", "count", "fold")))
    if kind == "exact":
        return {"kind": kind, "dtype": draw(st.sampled_from(STORED[:3]))}
    if kind == "quantized":
        return {"kind": kind, "values": draw(st.sampled_from(STORED[3:]))}
    size = {"fraction": 1 / draw(ratios)} if kind == "positions" else {"ratio": draw(ratios)}
    return {"kind": kind, "values": draw(st.sampled_from(STORED)), **size}


def sketch_of(config: dict[str, Any], shape: tuple[int, int, int], seed: int) -> Sketch:
    return make_sketch(TypeAdapter(SketchConfig).validate_python(config), seed, "mid_block", shape)


def maps(count: int, shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@given(configs(), shapes, st.integers(0, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_stored_as_declared_and_read_back(
    config: dict[str, Any], shape: tuple[int, int, int], seed: int, count: int
) -> None:
    """The arrays have the declared types and shapes, and what is read is the projection but for rounding."""
    sketch, features = sketch_of(config, shape, seed), maps(count, shape, seed)
    ids = np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)
    arrays = {suffix: to_numpy(values) for suffix, values in sketch.encode(features, ids).items()}
    for suffix, layout in sketch.arrays.items():
        assert (arrays[suffix].dtype.name, arrays[suffix].shape) == (layout.dtype, (count, *layout.shape))
    decoded = sketch.decode({suffix: from_numpy(values) for suffix, values in arrays.items()})
    projected = sketch.project(features, ids)
    assert decoded.shape == projected.shape == (count, sketch.num_outputs)
    step = STEP[config.get("dtype") or config["values"]]
    assert float((decoded - projected).abs().max()) <= step * float(projected.abs().max()) * 1.001


@given(configs(), shapes, st.integers(0, 9), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_the_projection_is_linear_and_its_gradient_is_its_transpose(
    config: dict[str, Any], shape: tuple[int, int, int], seed: int, factor: float
) -> None:
    sketch, ids = sketch_of(config, shape, seed), np.array([seed, 2**63 + seed], dtype=np.uint64)
    one, other = maps(2, shape, seed).requires_grad_(), maps(2, shape, seed + 1)
    together = sketch.project(one + factor * other, ids)
    apart = sketch.project(one, ids) + factor * sketch.project(other, ids)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    weights = torch.randn(together.shape, generator=torch.Generator().manual_seed(seed))
    (transposed,) = torch.autograd.grad((sketch.project(one, ids) * weights).sum(), one)
    forward, backward = (sketch.project(other, ids) * weights).sum(), (other * transposed).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-3, atol=1e-3)


@given(shapes, ratios, st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_folding_keeps_every_value_once(shape: tuple[int, int, int], ratio: float, seed: int) -> None:
    """Each value goes to one sum with a sign, and none is lost: the transpose of all ones has no zero."""
    sketch = sketch_of({"kind": "fold", "values": "float32", "ratio": ratio}, shape, seed)
    blank = torch.zeros(1, *shape, requires_grad=True)
    ids = np.array([seed], dtype=np.uint64)
    (signs,) = torch.autograd.grad(sketch.project(blank, ids).sum(), blank)
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    for layout in (torch.contiguous_format, torch.channels_last):
        features = maps(1, shape, seed).to(memory_format=layout)
        torch.testing.assert_close(sketch.project(features, ids), sketch.project(maps(1, shape, seed), ids))
