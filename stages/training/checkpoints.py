"""Saving all that a run needs to go on as if it had not been broken off, and taking it up again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pea.config import Config
from pea.errors import TrainingError
from pea.models.trainable import Trained
from pea.storage.leases import Lease
from pea.training.saved_state import MovingAverage, TrainState, TrainStates, optimizer_tensors, restore_optimizer
from pea.training.train_log import TrainLog
from stages.command.run_folder import publish_so_far
from stages.training.fingerprints import differing_settings
from stages.training.output import LossMeter
from stages.training.validation import Validation


@dataclass
class Counters:
    """Where a run is."""

    step: int = 0
    """Optimizer steps done."""
    skipped: int = 0
    """Of these, without an update."""
    streak: int = 0
    """Steps without an update since the last one with it."""
    seconds: float = 0.0
    """Time in the loop."""
    cpu_seconds: float | None = 0.0
    """Of this process, in the loop; None: a saved state was taken up that does not know them."""


@dataclass
class Parts:
    """What a saved state is made of and put back into."""

    trained: Trained
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    validation: Validation | None
    counters: Counters = field(default_factory=Counters)
    meter: LossMeter = field(default_factory=LossMeter)


class Checkpoints:
    """The saved states of one run."""

    def __init__(
        self, config: Config, fingerprint: dict[str, Any], accelerator: Accelerator, lease: Lease | None = None
    ) -> None:
        """`lease`: of the run's folder, which the main process holds."""
        self.config, self.resume = config, config.train.resume
        self.fingerprint, self.accelerator, self.lease = fingerprint, accelerator, lease
        self.states = TrainStates(config.training_dir / "states", config.train.keep_states)

    def take_up(self, parts: Parts, first_step: int, logs: list[TrainLog]) -> str:
        """Put the newest saved state of the same run into the parts; returns what there is to say about it.

        `first_step`: steps of the phases before, which the logs count.

        Raises:
            TrainingError: `train.resume` is `must` and there is no such state.
            StorageError: a saved state cannot be read.
        """
        self.states.tidy()
        state = None if self.resume == "never" else self.states.newest()
        differing = differing_settings(state.record["fingerprint"], self.fingerprint) if state else []
        said = ""
        if state is None or differing:
            other = f"the saved state is of another run ({', '.join(differing)})"
            why = other if differing else ", ".join(self.states.damaged) or "no saved state"
            if self.resume == "must":
                raise TrainingError("cannot resume", where=self.states.folder, got=why)
            said = f"training anew: {why}" if differing or self.states.damaged else ""
            if self.accelerator.is_main_process:
                self.states.clear()
        else:
            self._restore(parts, state)
            said = ", ".join([*self.states.damaged, f"resumed at step {state.step}"])
        if self.accelerator.is_main_process:
            for log in logs:
                log.keep(first_step + parts.counters.step)
        self.accelerator.wait_for_everyone()
        return said

    def save(self, parts: Parts) -> None:
        """Save everything; other processes wait.

        Raises:
            LeaseLostError: another training may own the folder by now.
            DiskFullError: the disk is full.
        """
        if self.accelerator.is_main_process:
            record = asdict(parts.counters) | {"meter": parts.meter.state(), "fingerprint": self.fingerprint}
            if self.accelerator.scaler is not None:
                record["scaler"] = self.accelerator.scaler.state_dict()
            tensors: dict[str, dict[str, Tensor]] = {
                "adapter": dict(parts.trained.parameters),
                "optimizer": optimizer_tensors(parts.optimizer, list(parts.trained.parameters)),
            }
            if parts.average is not None:
                tensors["average"] = parts.average.tensors
            if parts.validation is not None:
                record["validation"] = parts.validation.record()
                tensors |= {"best": parts.validation.best} if parts.validation.best else {}
            if self.lease is not None:
                self.lease.confirm()
            self.states.save(TrainState(parts.counters.step, record, tensors))
            publish_so_far(self.config)
        self.accelerator.wait_for_everyone()

    def _restore(self, parts: Parts, state: TrainState) -> None:
        for name in asdict(parts.counters):
            setattr(parts.counters, name, state.record.get(name))
        parts.meter.restore(state.record["meter"], self.accelerator.device)
        parts.trained.load(state.tensors["adapter"])
        names = list(parts.trained.parameters)
        restore_optimizer(parts.optimizer, names, state.tensors.get("optimizer", {}))
        if parts.average is not None:
            moved = {name: tensor.to(self.accelerator.device) for name, tensor in state.tensors["average"].items()}
            parts.average.tensors = moved
        if parts.validation is not None:
            parts.validation.restore(state.record["validation"], state.tensors.get("best", {}))
        if self.accelerator.scaler is not None and "scaler" in state.record:
            self.accelerator.scaler.load_state_dict(state.record["scaler"])
