"""Saved states: whole or absent, complete for the optimizer, pruned."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from pea.config import TrainConfig
from pea.errors import StorageError
from pea.storage.durable import new_folder, temporary_sibling, write_text
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


@pytest.fixture
def saved(tmp_path: Path) -> TrainStates:
    """Two states, of which the second is the newest."""
    states = TrainStates(tmp_path, keep=2)
    for step in (1, 2):
        tensors = {"adapter": {"w": torch.full((64,), float(step))}, "optimizer": {"w/exp_avg": torch.ones(64)}}
        states.save(TrainState(step, {"fingerprint": {"a": (1, 2)}, "seconds": 1.5}, tensors))
    return states


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: _flip(folder / "adapter.safetensors", -5), "adapter.safetensors has other bytes"),
        (lambda folder: _flip(folder / "optimizer.safetensors", -5), "optimizer.safetensors has other bytes"),
        (lambda folder: (folder / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
        (lambda folder: (folder / "average.safetensors").write_bytes(b""), "average.safetensors is not a part of it"),
        (lambda folder: (folder / "state.json").unlink(), "state.json is missing"),
        (lambda folder: (folder / "state.json").write_text("["), "state.json is no JSON"),
        (lambda folder: (folder / "state.json").write_text("[]"), "state.json has other bytes"),
    ],
)
def test_what_is_not_what_was_saved_is_passed_over_and_named(
    saved: TrainStates, damage: Callable[[Path], object], said: str
) -> None:
    damage(saved.folder / "step-00000002")
    newest = saved.newest()
    assert newest is not None and newest.step == 1 and newest.record == {"fingerprint": {"a": [1, 2]}, "seconds": 1.5}
    assert len(saved.damaged) == 1 and f"step-00000002 is damaged ({said}" in saved.damaged[0]


@pytest.mark.slow
def test_every_flipped_bit_of_the_record_is_found(saved: TrainStates) -> None:
    path = saved.folder / "step-00000002/state.json"
    whole = path.read_bytes()
    for position in range(len(whole)):
        _flip(path, position)
        newest = saved.newest()
        assert newest is not None and newest.record == {"fingerprint": {"a": [1, 2]}, "seconds": 1.5}, position
        path.write_bytes(whole)


def test_states_from_before_there_were_digests_are_taken_up(saved: TrainStates) -> None:
    (saved.folder / "step-00000002/state.json").write_text('{"fingerprint": {}, "seconds": 2}')
    newest = saved.newest()
    assert newest is not None and newest.step == 2 and newest.record["seconds"] == 2 and not saved.damaged


def test_a_state_that_cannot_be_read_is_not_passed_over(saved: TrainStates, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pea.training.saved_state.sha256_file", broken)
    with pytest.raises(StorageError, match="cannot read the saved state"):
        saved.newest()


def test_what_a_killed_run_had_not_published_goes_with_the_next_state(tmp_path: Path) -> None:
    states = TrainStates(tmp_path, keep=2)
    left = temporary_sibling(tmp_path / "step-00000001")
    left.mkdir()
    (left / "optimizer.safetensors").write_bytes(b"half")
    states.save(TrainState(1, {}, {"adapter": {"w": torch.zeros(1)}}))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


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
