"""A compiled teacher: the option reaches torch.compile, hooks still collect, and a missing compiler is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pea.cache import Cache, cache_identity
from pea.collect.collector import Collector
from pea.collect.events import Task
from pea.config import Config
from pea.corpus.samples import expand_tars
from pea.errors import DeviceError
from pea.models.compiling import check_compiler, compile_teacher
from pea.models.conditioning import Conditioning
from pea.models.unet import Teacher, UNetOutput
from tests.cache_helpers import store_of
from tests.tiny_models import make_checkpoint

Function = Callable[..., Any]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is given to torch.compile, which only wraps it."""
    names: list[str] = []

    def compile_(function: Function) -> Function:
        names.append(getattr(function, "__qualname__", ""))
        return lambda *positional, **named: function(*positional, **named)

    monkeypatch.setattr(torch, "compile", compile_)
    return names


@torch.inference_mode()
def answer(teacher: Teacher) -> UNetOutput:
    """Of three records, with the queries of every layer."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, teacher.unet.config.cross_attention_dim, generator=generator)
    latents, ids = torch.randn(3, 4, 8, 8, generator=generator), torch.ones(3, 6, dtype=torch.int64)
    positions = {name: torch.tensor([[0, 3]] * 3) for name in teacher.query_layers}
    text = Conditioning(hidden, torch.randn(3, 12, generator=generator))
    return teacher.forward(latents, torch.tensor([1, 500, 999]), text, ids, positions)


def assert_same(one: UNetOutput, other: UNetOutput) -> None:
    """Noise prediction, features and queries, to the tolerance of float32."""
    assert set(one.features) == set(other.features) and set(one.queries) == set(other.queries) != set()
    torch.testing.assert_close(one.noise_pred, other.noise_pred)
    for name in one.features:
        torch.testing.assert_close(one.features[name], other.features[name])
    for name in one.queries:
        torch.testing.assert_close(one.queries[name], other.queries[name])


def test_every_block_is_compiled_and_hooks_collect(tmp_path: Path, compiled: list[str]) -> None:
    checkpoint = make_checkpoint(tmp_path, "sdxl")
    plain, fast = (Teacher.from_checkpoint(checkpoint, query_layers="all") for _ in range(2))
    compile_teacher(fast)
    probe, *blocks = compiled
    assert probe == "_double" and len(blocks) == len(fast.blocks) == 5
    assert all(name.endswith(".forward") for name in blocks)
    assert_same(answer(plain), answer(fast))


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_function: Function) -> Function:
        raise RuntimeError("No working C++ compiler found\nand a long explanation")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(DeviceError) as caught:
        check_compiler(torch.device("cpu"))
    assert str(caught.value) == (
        "cache.run.compile, cpu: torch.compile does not work here; got No working C++ compiler found. "
        "Install a C++ compiler such as g++ (on a GPU also triton), or set cache.run.compile to false."
    )


@pytest.mark.slow
def test_the_option_compiles_the_collectors_teacher_and_is_noted(fresh_run: Config, compiled: list[str]) -> None:
    run = fresh_run.cache.run.model_copy(update={"compile": True})
    config = fresh_run.model_copy(update={"cache": fresh_run.cache.model_copy(update={"run": run})})
    assert cache_identity(config, "parallel") == cache_identity(fresh_run, "parallel")
    cache = Cache.create_or_resume(config.cache_dir("parallel"), cache_identity(config, "parallel"))
    (plan, *_), (tar, *_) = cache.plan(), expand_tars(config.corpora.parallel.tars)
    for _ in Collector(config, "parallel", torch.device("cpu")).collect(cache, Task(plan, tar)):
        pass
    assert len(compiled) == 1 + 5
    stored = (store_of(cache, plan.tar, plan.part) / "zarr.json").read_text()
    assert '"made_with": "PEA-Cache, torch.compile"' in stored


@pytest.mark.by_hand
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_a_really_compiled_teacher_gives_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))  # not what a killed process left half
    checkpoint = make_checkpoint(tmp_path, "sdxl")
    plain, fast = (Teacher.from_checkpoint(checkpoint, query_layers="all") for _ in range(2))
    compile_teacher(fast)
    assert_same(answer(plain), answer(fast))
