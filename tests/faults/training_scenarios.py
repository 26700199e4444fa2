"""Walks over what a training leaves: saved states, the log, and the published adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from pea.config import Config, EvaluateConfig
from pea.errors import PeaError
from pea.models.adapter import PEA
from pea.training.saved_state import TrainState, TrainStates
from pea.training.train_log import TrainLog
from stages import evaluate
from stages.command.guard import guarded
from stages.train_adapter import run
from stages.training.output import publish
from tests.faults.scenario import Scenario
from tests.tiny_setup import TRAIN, make_setup
from tests.train_runs import log_rows, weights

STEPS = 4
_FORMER, _UNTRAINED = 2.0, 0.0
_QUIET = Console(quiet=True)
_SUMMARY = {
    "method": "adapter",
    "trained_parameters": 1,
    "skipped_steps": 0,
    "records": 1,
    "culture_samples": 0,
    "targets": "cache",
    "phases": [{"kind": "unet", "steps": STEPS}],
}


def _config(folder: Path) -> Config:
    raw = {
        "run_dir": str(folder / "run"),
        "teacher": {"checkpoint": str(folder / "teacher")},
        "corpora": {"parallel": {"tars": ["parallel.tar"]}},
        "student": {"encoder": str(folder / "zh")},
    }
    return Config.model_validate_json(json.dumps(raw))


def _adapter(value: float) -> PEA:
    """A small adapter all of whose weights are one number."""
    adapter = PEA(input_dim=4, cross_attention_dim=4, pooled_dim=None, hidden_size=4, cache_identity=f"of {value}")
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.fill_(value)
    return adapter


def _value_at(step: int) -> float:
    return float(10 + step)


def _prepare(folder: Path) -> None:
    """An adapter of a former run is there."""
    config = _config(folder)
    config.adapter_dir.mkdir(parents=True)
    publish(config, _adapter(_FORMER), None, [], _SUMMARY)


def _train(folder: Path) -> int:
    """What a training does with its folder, in the same order, without the arithmetic."""

    def work() -> int:
        config = _config(folder)
        states = TrainStates(config.training_dir / "states", keep=2)
        log = TrainLog(config.training_dir / "train_log.jsonl")
        states.tidy()
        state = states.newest()
        done = 0 if state is None else state.step
        log.keep(done)
        adapter = _adapter(_UNTRAINED if state is None else float(state.tensors["adapter"]["layernorm.weight"][0]))
        for step in range(done + 1, STEPS + 1):
            adapter = _adapter(_value_at(step))
            log.append({"step": step, "loss": 1.0 / step})
            states.save(TrainState(step, {"fingerprint": {}}, {"adapter": dict(adapter.named_parameters())}))
        publish(config, adapter, None, log.rows(), _SUMMARY)
        return 0

    return guarded(work)


def _newest(folder: Path) -> TrainState | None:
    return TrainStates(_config(folder).training_dir / "states", keep=2).newest()


def _result(folder: Path) -> dict[str, Any]:
    config, newest = _config(folder), _newest(folder)
    adapter = PEA.load(config.adapter_dir)
    return {
        "state": None if newest is None else [newest.step, _values(newest.tensors["adapter"])],
        "adapter": [_values(dict(adapter.named_parameters())), adapter.config.cache_identity],
        "log": log_rows(config),
        "card": (config.adapter_dir / "README.md").read_text("utf-8").count("\n"),
    }


def _values(tensors: Mapping[str, Tensor]) -> list[float]:
    return sorted({value for tensor in tensors.values() for value in tensor.flatten().tolist()})


def _between(folder: Path) -> None:
    """A state that can be read is whole, and an adapter that can be loaded is the former one or the new one."""
    newest = _newest(folder)
    assert newest is None or _values(newest.tensors["adapter"]) == [_value_at(newest.step)], newest
    try:
        adapter = PEA.load(_config(folder).adapter_dir)
    except PeaError:
        return
    found = (_values(dict(adapter.named_parameters())), adapter.config.cache_identity)
    assert found in [([value], f"of {value}") for value in (_FORMER, _value_at(STEPS))], found


def _prepare_setup(folder: Path) -> None:
    make_setup(folder, num_samples=6, train={"steps": 3, "save_every_steps": 1, "batch_size": 4})


def _setup(folder: Path) -> Config:
    raw = {
        "run_dir": str(folder / "run"),
        "teacher": {"checkpoint": str(folder / "teacher")},
        "corpora": {
            "parallel": {"tars": [str(folder / "parallel-*.tar")]},
            "culture": {"tars": [str(folder / "culture.tar")], "source_language": "zh"},
        },
        "cache": {
            "draws_per_sample": 3,
            "caption_drop_rate": 0.3,
            "buckets": [[16, 16], [16, 24]],
            "sketch": {"kind": "exact", "dtype": "float32"},
            "noise_pred_dtype": "float32",
        },
        "student": {"encoder": str(folder / "zh"), "adapter": {"hidden_size": 16}},
        "train": TRAIN | {"steps": 3, "save_every_steps": 1, "batch_size": 4},
    }
    return Config.model_validate_json(json.dumps(raw))


def _run(folder: Path) -> int:
    return guarded(lambda: 0 * len(run(_setup(folder), _QUIET)))


def _run_result(folder: Path) -> dict[str, Any]:
    config = _setup(folder)
    digest = hashlib.sha256()
    for name, tensor in sorted(weights(config).items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    losses = [[row["step"], row["loss"]] for row in log_rows(config)]
    PEA.load(config.adapter_dir)
    return {"weights": digest.hexdigest(), "losses": losses}


def _prepare_eval(folder: Path) -> None:
    """A trained adapter, and an evaluation of it with other settings."""
    _prepare_setup(folder)
    assert _run(folder) == 0
    lines = [{"id": f"p{number}", "captions": {"en": "a cat", "zh": "一只猫"}, "attributes": {}} for number in range(2)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert _eval(folder, steps=1) == 0


def _eval(folder: Path, steps: int = 2) -> int:
    settings = EvaluateConfig(
        prompts={"general": folder / "prompts.jsonl"},
        rows=("teacher", "adapter"),
        num_inference_steps=steps,
        device="cpu",
    )
    config = _setup(folder).model_copy(update={"evaluate": settings})
    return guarded(lambda: 0 * len(evaluate.run(config, _QUIET)))


def _eval_result(folder: Path) -> dict[str, Any]:
    metrics = json.loads((folder / "run/metrics.json").read_text("utf-8"))
    pictures = sorted((folder / "run/evaluate").rglob("*.png"))
    digests = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}
    return digests | {"metrics": {name: value for name, value in metrics.items() if not name.startswith("seconds.")}}


def _pictures_are_whole(folder: Path) -> None:
    json.loads((folder / "run/metrics.json").read_text("utf-8"))
    for path in (folder / "run/evaluate").rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()


OUTPUT = Scenario(_train, _result, _prepare, _between)
"""The files of a training, without its arithmetic: a step takes a tenth of a second."""
TRAINING = Scenario(_run, _run_result, _prepare_setup)
"""A whole training of a tiny model: a step takes seconds."""
EVAL = Scenario(_eval, _eval_result, _prepare_eval, _pictures_are_whole)
"""An evaluation with a tiny model, over one with other settings: a step takes seconds."""
