"""Saved states: whole or absent, complete for the optimizer, pruned."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from pea.config import TrainConfig
from pea.storage.durable import new_folder, write_text
from pea.training.saved_state import (
    MovingAverage,
    TrainState,
    TrainStates,
    differing_names,
    optimizer_tensors,
    restore_optimizer,
)
from pea.training.schedule import learning_rate


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def test_a_restored_optimizer_goes_on_alike(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    names = [name for name, _ in model.named_parameters()]
    for _ in range(3):
        _step(model, optimizer)
    tensors = {"adapter": dict(model.named_parameters()), "optimizer": optimizer_tensors(optimizer, names)}
    states = TrainStates(tmp_path, keep=2)
    states.save(TrainState(3, {"seconds": 1.5}, tensors))
    newest = states.newest()
    assert newest is not None and newest.step == 3 and newest.record == {"seconds": 1.5}
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(newest.tensors["adapter"])
    resumed = torch.optim.AdamW(other.parameters(), lr=0.1)
    restore_optimizer(resumed, names, newest.tensors["optimizer"])
    _step(model, optimizer)
    _step(other, resumed)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


def test_old_states_go_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    states = TrainStates(tmp_path, keep=2)
    assert states.newest() is None
    for step in (1, 2, 3):
        states.save(TrainState(step, {}, {"adapter": {"w": torch.full((2,), float(step))}}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    (tmp_path / "step-00000003/adapter.safetensors").write_bytes(b"")
    newest = states.newest()
    assert newest is not None and newest.step == 2
    states.clear()
    assert states.newest() is None


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with suppress(ZeroDivisionError), new_folder(tmp_path / "made") as temporary:
        (temporary / "half").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []
    write_text(tmp_path / "deep/file.txt", "one")
    write_text(tmp_path / "deep/file.txt", "two")
    assert [path.read_text() for path in (tmp_path / "deep").iterdir()] == ["two"]


def test_moving_average() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = MovingAverage(dict(model.named_parameters()), 0.9)
    torch.nn.init.ones_(model.weight)
    average.update(dict(model.named_parameters()))
    assert average.tensors["weight"].item() == pytest.approx(0.1)


def test_learning_rate() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, learning_rate=1.0, schedule="cosine")
    assert learning_rate(0, config) == pytest.approx(0.1) and learning_rate(9, config) == 1.0
    assert learning_rate(60, config) == pytest.approx(0.5) and learning_rate(110, config) == pytest.approx(0.0)
    constant = config.model_copy(update={"schedule": "constant"})
    assert learning_rate(109, constant) == 1.0


def test_differing_names() -> None:
    assert differing_names({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 3}) == ["a.c", "d", "e"]
