"""What the phases of a training run share: their position in it, what they leave, and when their time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pea.config import Config, Phase
from pea.training.recipe import with_recipe
from pea.training.train_log import Row, TrainLog


@dataclass(frozen=True)
class PhaseDone:
    """What a phase did, resumed parts included."""

    kind: str
    steps: int
    rows: int
    """That were trained on, in all processes."""
    seconds: float
    """In its loop."""
    cpu_seconds: float | None
    """Of this process and all its threads, in the loop; None: a part of it was done before they were counted."""
    row_flops: float
    """Floating-point operations of a row, as `pea.costs.training` counts them."""
    unet_share: float = 0.0
    """Share of the rows that pass the student's UNet."""

    @property
    def tflop(self) -> float:
        """Arithmetic of the phase, in 10^12 floating-point operations."""
        return self.rows * self.row_flops / 1e12

    @property
    def unet_rows(self) -> int:
        """Rows that passed the student's UNet."""
        return round(self.rows * self.unet_share)

    def summary(self) -> dict[str, Any]:
        """For `train_summary.json`."""
        return {
            "kind": self.kind,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "cpu_seconds": None if self.cpu_seconds is None else round(self.cpu_seconds, 2),
            "unet_rows": self.unet_rows,
            "tflop": rounded(self.tflop),
        }


@dataclass(frozen=True)
class PhasePosition:
    """Where a phase stands in its run."""

    phases: tuple[Phase, ...]
    """All of the run."""
    done: tuple[PhaseDone, ...] = ()
    """Those before it."""
    resumed: bool = False
    """Whether something of this run has been taken up already."""

    @property
    def number(self) -> int:
        """Of the phase, from 1."""
        return len(self.done) + 1

    @property
    def phase(self) -> Phase:
        """The phase itself."""
        return self.phases[len(self.done)]

    @property
    def is_over(self) -> bool:
        """Whether no phase is left."""
        return len(self.done) == len(self.phases)

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"phase {self.number} ({self.phase.kind})"

    @property
    def former(self) -> tuple[Phase, ...]:
        """The phases before it."""
        return self.phases[: len(self.done)]

    @property
    def first_step(self) -> int:
        """Optimizer steps of the phases before it; logs count steps through all phases."""
        return sum(each.steps for each in self.done)

    @property
    def seconds(self) -> float:
        """That the phases before it took."""
        return sum(each.seconds for each in self.done)

    def after(self, done: PhaseDone, *, resumed: bool) -> PhasePosition:
        """The position of the next phase."""
        return PhasePosition(self.phases, (*self.done, done), self.resumed or resumed)

    def settings(self, config: Config) -> Config:
        """The configuration with the phase's own settings of training."""
        train = self.phase.train
        if self.resumed and train.resume == "must":
            train = train.model_copy(update={"resume": "auto"})
        return config.model_copy(update={"train": train})


def first_position(config: Config, num_samples: Callable[[], int], num_processes: int = 1) -> PhasePosition:
    """The position of a run's first phase; rates and steps that the configuration leaves out are filled in.

    `num_samples`: of the parallel corpus, asked where it is needed.
    """
    width = config.student.adapter.hidden_size
    return PhasePosition(
        tuple(with_recipe(phase, width, num_processes, num_samples) for phase in config.train.all_phases)
    )


def states_folder(config: Config, number: int, kind: str) -> Path:
    """Where a run keeps the saved states of its phase `number` (from 1)."""
    return config.training_dir / "phases" / f"{number}-{kind}"


def late_peaks(phases: Sequence[Phase]) -> list[str]:
    """A line for each phase that ends before its learning rate has risen to its peak."""
    return [
        f"phase {number} ({kind}): warmup_steps {train.warmup_steps} of {train.steps} steps, so it ends below its peak"
        for number, (kind, train) in enumerate(phases, 1)
        if train.steps is not None and train.warmup_steps > train.steps
    ]


def true_in_all_processes(accelerator: Accelerator, flag: Tensor) -> bool:
    """Whether a flag holds in every process."""
    held: Tensor = accelerator.reduce(flag.float().reshape(1), "sum")
    return int(held.item()) == accelerator.num_processes


def out_of_time(accelerator: Accelerator, position: PhasePosition, seconds: float) -> bool:
    """Whether a process has been in the loops for `train.max_minutes`; `seconds`: in that of this phase."""
    limit = position.phase.train.max_minutes
    if limit is None:
        return False
    in_time = torch.tensor(position.seconds + seconds < 60 * limit, device=accelerator.device)
    return not true_in_all_processes(accelerator, in_time)


def expected_steps(position: PhasePosition, done: int, steps: int, seconds: float) -> float:
    """How many steps a phase will have made, at the pace so far, when they or `train.max_minutes` are over."""
    limit = position.phase.train.max_minutes
    if limit is None or not seconds:
        return steps
    left = max(0.0, 60 * limit - position.seconds - seconds)
    return min(steps, done + done * left / seconds)


def early_end(position: PhasePosition, done: int, steps: int, *, in_time: bool) -> str | None:
    """What is to be said of a phase that made fewer steps than planned; None: it made them all."""
    if done >= steps:
        return None
    why = "its validation loss no longer falls (train.patience)" if in_time else "train.max_minutes is over"
    return f"{position.name}: ended after {done:,} of {steps:,} steps, {why}"


def write_row(accelerator: Accelerator, log: TrainLog, row: Row) -> None:
    """A row for a log and the trackers."""
    if accelerator.is_main_process:
        log.append(row)
    accelerator.log({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))


def rounded(value: float) -> float:
    """To five significant digits."""
    return float(f"{value:.5g}")


def whole_summary(done: Sequence[PhaseDone]) -> dict[str, Any]:
    """What a summary says of all phases together, and of each."""
    seconds = sum(each.seconds for each in done)
    cpu_seconds = [each.cpu_seconds for each in done if each.cpu_seconds is not None]
    return {
        "steps": sum(each.steps for each in done),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(cpu_seconds), 2) if len(cpu_seconds) == len(done) else None,
        "unet_rows": sum(each.unet_rows for each in done),
        "samples_per_s": round(sum(each.rows for each in done) / max(seconds, 1e-9), 1),
        "tflop": rounded(sum(each.tflop for each in done)),
        "phases": [each.summary() for each in done],
    }
