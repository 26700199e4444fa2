"""Train the adapter from the cache (or, with `train.targets=live`, the original way, asking the teacher at every step).

    pea train --config configs/demo.yaml
    accelerate launch -m stages.train_adapter --config FILE          (several GPUs)
    torchrun --nproc_per_node 2 -m stages.train_adapter --config FILE

One loop for both. To resume, run the same command: the newest saved state of the same run is taken up, and the result
is the same, bit for bit on CPU, as if it had not been broken off.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import nn

from pea.config import Config
from pea.cpu import shared_threads
from pea.dataset import prefetch
from pea.schedule import learning_rate
from pea.train_state import MovingAverage
from pea.trained import Trained
from stages.common import stage_main
from stages.progress import StageProgress
from stages.train_attention import publish_warm_start, warm_start
from stages.train_checkpoints import Checkpoints, Parts
from stages.train_losses import BatchLosses
from stages.train_output import TrainLog, publish
from stages.train_pictures import Pictures
from stages.train_setup import Setup, prepare
from stages.train_step import OptimizerStep, everywhere
from stages.train_trackers import chosen_trackers, finish_trackers, start_trackers
from stages.train_validation import Validation


class Trainer:
    """The loop: steps, and what happens every so many of them."""

    def __init__(
        self,
        config: Config,
        setup: Setup,
        accelerator: Accelerator,
        console: Console,
        warm_seconds: float = 0.0,
    ) -> None:
        """`warm_seconds`: what the warm start took."""
        self.config, self.train, self.setup, self.warm_seconds = config, config.train, setup, warm_seconds
        self.accelerator, self.console = accelerator, console
        self.trained = Trained(setup.adapter.to(accelerator.device), setup.unet_parameters)
        optimizer = torch.optim.AdamW(
            self.trained.parameters.values(),
            lr=self.train.learning_rate,
            betas=(0.9, self.train.adam_beta2),
            weight_decay=self.train.weight_decay,
        )
        self.wrapped: nn.Module
        self.wrapped, optimizer = accelerator.prepare(setup.adapter, optimizer)
        self.losses = BatchLosses(config, setup, self.wrapped, accelerator)
        self.log = TrainLog(config.adapter_dir / "train_log.jsonl")
        validation, log = None, TrainLog(config.adapter_dir / "validation_log.jsonl")
        if setup.validation is not None:
            validation = Validation(setup.validation, self.train.validation_batches, self.trained, log)
        self.parts = Parts(self.trained, optimizer, self._new_average(), validation)
        self.counters, self.meter = self.parts.counters, self.parts.meter
        self.optimizer_step = OptimizerStep(config, self.parts, self.wrapped, self.losses, accelerator)
        self.checkpoints = Checkpoints(config, setup.fingerprint, accelerator)
        wanted = self.train.sample_every_steps and accelerator.is_main_process
        self.pictures = Pictures(config, setup, accelerator) if wanted else None
        self.rows_per_step = self.train.batch_size * self.train.gradient_accumulation_steps * accelerator.num_processes

    def run(self) -> dict[str, Any]:
        """Train to the last step and publish the adapter; returns the summary."""
        self._resume()
        start_trackers(self.accelerator, self.config)
        start, steps, note = self.counters.step, self.train.steps, ""
        finished = start >= steps or self._out_of_time()
        with (
            closing(prefetch(self.setup.batch, self._indices(), self.train.num_workers)) as batches,
            shared_threads(self.optimizer_step.num_groups),
            StageProgress(self.console, "training", "samples") as progress,
        ):
            numbered = zip(self._indices(), batches, strict=True)
            while not finished:
                started = time.perf_counter()
                self.optimizer_step(numbered)
                self.counters.seconds += time.perf_counter() - started
                done = self.counters.step
                finished = done == steps or self._out_of_time()
                note = self._after_step(last=finished) or note
                progress.update(done, steps, (done - start) * self.rows_per_step, note)
        return self._finish()

    def _resume(self) -> None:
        validation = self.parts.validation
        said = self.checkpoints.take_up(self.parts, [self.log, *([validation.log] if validation else [])])
        if said:
            self._say(f"{said} of {self.train.steps}" if self.counters.step else said)

    def _new_average(self) -> MovingAverage | None:
        decay = self.train.ema_decay
        return MovingAverage(self.trained.parameters, decay) if decay else None

    def _indices(self) -> Iterator[int]:
        """Indices of this process's batches, from the current step on."""
        per_step = self.train.gradient_accumulation_steps
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        numbers = range(self.counters.step * per_step, self.train.steps * per_step)
        return (number * world + rank for number in numbers)

    def _out_of_time(self) -> bool:
        """Whether a process has been in the loop for `train.max_minutes`."""
        if self.train.max_minutes is None:
            return False
        in_time = torch.tensor(self.counters.seconds < 60 * self.train.max_minutes, device=self.accelerator.device)
        return not everywhere(self.accelerator, in_time)

    def _after_step(self, *, last: bool) -> str:
        """Log, measure, draw and save where it is time to; returns what to show beside the progress."""
        step, train, note = self.counters.step, self.train, ""
        validation = self.parts.validation
        if last or step % train.log_every_steps == 0:
            note = f"loss {self._log_row()['loss']:.4f}"
        if validation is not None and (last or step % train.validate_every_steps == 0):
            loss = validation.measure(step, self.losses, self.parts.average)
            self._write(validation.log, {"step": step, "validation": loss})
            note = f"{note}, validation {loss:.4f}".removeprefix(", ")
        if self.pictures is not None and (last or step % train.sample_every_steps == 0):
            with self.trained.holding(None if self.parts.average is None else self.parts.average.tensors):
                self.pictures.draw(step)
        if last or step % train.save_every_steps == 0:
            self.checkpoints.save(self.parts)
        return note

    def _log_row(self) -> dict[str, float]:
        """Means of the losses since the last row, over all processes."""
        row: dict[str, float] = {"step": self.counters.step}
        for name, value in self.meter.take_means().items():
            row[name] = float(self.accelerator.reduce(value, "mean").item())
        row.setdefault("loss", float("nan"))
        row |= {
            "lr": learning_rate(self.counters.step - 1, self.train),
            "seconds": round(self.counters.seconds, 3),
            "skipped": self.counters.skipped,
            "samples_per_s": self._samples_per_s(),
        }
        self._write(self.log, row)
        return row

    def _write(self, log: TrainLog, row: dict[str, float]) -> None:
        """A row for the log and the trackers."""
        if self.accelerator.is_main_process:
            log.append(row)
        self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=self.counters.step)

    def _samples_per_s(self) -> float:
        return round(self.rows_per_step * self.counters.step / max(self.counters.seconds, 1e-9), 1)

    def _finish(self) -> dict[str, Any]:
        validation, average = self.parts.validation, self.parts.average
        summary = {
            "steps": self.counters.step,
            "skipped_steps": self.counters.skipped,
            "seconds": round(self.counters.seconds, 2),
            "samples_per_s": self._samples_per_s(),
            "method": self.train.method,
            "trained_parameters": self.trained.num_parameters,
            "records": self.setup.data.num_records,
            "culture_samples": self.setup.data.num_culture_samples,
            "targets": self.train.targets,
            "attention_seconds": round(self.warm_seconds, 2),
            "peak_gpu_memory_bytes": peak_gpu_memory_bytes(self.accelerator.device),
        }
        values = None if average is None else average.tensors
        if validation is not None and validation.best:
            summary |= {"best_step": validation.best_step, "best_validation_loss": validation.best_loss}
            values = validation.best
        if self.accelerator.is_main_process:
            with self.trained.holding(values):
                publish(self.config, self.setup.adapter, self.setup.teacher.unet, self.log.rows(), summary)
            self._say(f"adapter in {self.config.adapter_dir}: {json.dumps(summary)}")
        finish_trackers(self.accelerator)
        self.accelerator.wait_for_everyone()
        return summary

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False)


def peak_gpu_memory_bytes(device: torch.device) -> int:
    """Most bytes of tensors that were held on a GPU at a time; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def run(config: Config, console: Console) -> dict[str, Any]:
    """Train the configured adapter; returns the summary that is also in `adapter/train_summary.json`.

    Raises:
        IdentityError: a cache was not made from this teacher, scheduler, corpus or recipe.
        CheckpointError: a model folder is missing or unusable.
        ConfigError: a setting does not fit the others, or asks for a package that is not installed.
        TrainingError: the loss stays not finite, or there is nothing to resume from where that is asked for.
    """
    trackers = chosen_trackers(config)
    AcceleratorState._reset_state()  # noqa: SLF001 - else a second run in one process cannot have another precision
    accelerator = Accelerator(
        mixed_precision=config.train.precision,
        cpu=config.train.device == "cpu",
        log_with=trackers or None,
        project_dir=config.run_dir / "trackers",
    )
    if not accelerator.is_main_process:
        console = Console(quiet=True)
    warm = warm_start(config, accelerator, console) if config.train.attention_steps else None
    if warm is not None and config.train.steps == 0:
        return publish_warm_start(config, warm, accelerator, console)
    setup = prepare(config, accelerator.device, accelerator.num_processes)
    if warm is not None:
        setup.adapter.load_state_dict(warm.parameters)
    return Trainer(config, setup, accelerator, console, warm.seconds if warm else 0.0).run()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return stage_main(run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
