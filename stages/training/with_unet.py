"""The phase with the UNet: each step reads records of the cache, or asks the teacher, and passes the student's UNet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from pea.batches.dataset import prefetch
from pea.config import Config
from pea.costs.training import RowFlops
from pea.cpu import shared_threads
from pea.file_names import TRAIN_LOG, VALIDATION_LOG
from pea.models.trainable import Trained
from pea.storage.leases import Lease
from pea.training.saved_state import MovingAverage
from pea.training.schedule import learning_rate
from pea.training.train_log import TrainLog
from stages.command.console import Console
from stages.command.progress import StageProgress
from stages.training.checkpoints import Checkpoints, Parts
from stages.training.losses import BatchLosses
from stages.training.output import publish
from stages.training.phase import (
    PhaseDone,
    PhasePosition,
    early_end,
    expected_steps,
    out_of_time,
    true_in_all_processes,
    whole_summary,
    write_row,
)
from stages.training.pictures import Pictures
from stages.training.setup import Setup
from stages.training.step import OptimizerStep
from stages.training.validation import Validation
from stages.training.warm_start import warm_start_record


class WithUnetPhase:
    """The loop: steps, and what happens every so many of them."""

    def __init__(
        self,
        config: Config,
        setup: Setup,
        accelerator: Accelerator,
        console: Console,
        position: PhasePosition,
        lease: Lease | None,
    ) -> None:
        """`config`: with the phase's settings; `lease`: of the run's folder, in the main process."""
        self.config, self.train, self.setup, self.position = config, config.train, setup, position
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
        self.log = TrainLog(config.training_dir / TRAIN_LOG)
        validation, log = None, TrainLog(config.training_dir / VALIDATION_LOG)
        if setup.validation is not None:
            validation = Validation(
                setup.validation, self.train.validation_batches, self.trained, log, self.train.patience
            )
        self.parts = Parts(self.trained, optimizer, self._new_average(), validation)
        self.flops = RowFlops(config, setup.adapter, setup.data.rows_of_epoch)
        self.counters, self.meter = self.parts.counters, self.parts.meter
        self.optimizer_step = OptimizerStep(config, self.parts, self.wrapped, self.losses, accelerator)
        self.checkpoints = Checkpoints(config, setup.fingerprint, accelerator, lease)
        wanted = self.train.sample_every_steps and accelerator.is_main_process
        self.pictures = Pictures(config, setup, accelerator) if wanted else None
        self.rows_per_step = self.train.batch_size * self.train.gradient_accumulation_steps * accelerator.num_processes

    def run(self, captions: Mapping[str, Any]) -> dict[str, Any]:
        """Train to the last step and publish the adapter; returns the summary, which takes over `captions`."""
        self._resume()
        self._say_what_is_not_held_out()
        start, steps, note = self.counters.step, self.train.steps, ""
        finished = (
            start >= steps
            or out_of_time(self.accelerator, self.position, self.counters.seconds)
            or self._has_stopped_falling()
        )
        with (
            closing(prefetch(self.setup.batch, self._indices(), self.train.num_workers)) as batches,
            shared_threads(self.optimizer_step.num_groups),
            StageProgress(self.console, "training", "samples") as progress,
        ):
            numbered = zip(self._indices(), batches, strict=True)
            while not finished:
                started, cpu_started = time.perf_counter(), time.process_time()
                self.optimizer_step(numbered)
                self.counters.seconds += time.perf_counter() - started
                if self.counters.cpu_seconds is not None:
                    self.counters.cpu_seconds += time.process_time() - cpu_started
                done = self.counters.step
                finished = done == steps or out_of_time(self.accelerator, self.position, self.counters.seconds)
                note = self._after_step(last=finished) or note
                if not finished and self._has_stopped_falling():
                    finished = True
                    self.checkpoints.save(self.parts)
                expected = expected_steps(self.position, done, steps, self.counters.seconds)
                progress.update(done, expected, (done - start) * self.rows_per_step, note)
        if said := early_end(self.position, self.counters.step, steps, in_time=self._has_stopped_falling()):
            self._say(said)
        return self._finish(captions)

    def _say_what_is_not_held_out(self) -> None:
        """Where a share of the samples is so small that none falls into it."""
        fraction, validation = self.train.validation_fraction, self.setup.validation
        if fraction and validation is None:
            self._say(f"validation: none, no sample falls into a share of {fraction:g}; the run takes all its steps")
        elif validation is not None and self.setup.data.culture and not validation.culture:
            self._say("validation: no culture sample is held out; its loss is that of the parallel records")

    def _has_stopped_falling(self) -> bool:
        """Whether the validation loss has, in every process, for as long as the run has patience."""
        validation = self.parts.validation
        if validation is None or validation.patience is None:
            return False
        over = torch.tensor(validation.is_over, device=self.accelerator.device)
        return true_in_all_processes(self.accelerator, over)

    def _resume(self) -> None:
        validation = self.parts.validation
        logs = [self.log, *([validation.log] if validation else [])]
        said = self.checkpoints.take_up(self.parts, self.position.first_step, logs)
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

    def _after_step(self, *, last: bool) -> str:
        """Log, measure, draw and save where it is time to; returns what to show beside the progress."""
        step, train, note = self.counters.step, self.train, ""
        validation = self.parts.validation
        if last or step % train.log_every_steps == 0:
            note = f"loss {self._log_row()['loss']:.4f}"
        if validation is not None and (last or step % train.validate_every_steps == 0):
            loss = validation.measure(self._whole_step, self.losses, self.parts.average)
            write_row(self.accelerator, validation.log, {"step": self._whole_step, "validation": loss})
            note = f"{note}, validation {loss:.4f}".removeprefix(", ")
        if self.pictures is not None and (last or step % train.sample_every_steps == 0):
            with self.trained.holding(None if self.parts.average is None else self.parts.average.tensors):
                self.pictures.draw(self._whole_step)
        if last or step % train.save_every_steps == 0:
            self.checkpoints.save(self.parts)
        return note

    def _log_row(self) -> dict[str, float]:
        """Means of the losses since the last row, over all processes."""
        row: dict[str, float] = {"step": self._whole_step, "phase": self.position.number}
        for name, value in self.meter.take_means().items():
            row[name] = float(self.accelerator.reduce(value, "mean").item())
        row.setdefault("loss", float("nan"))
        row |= {
            "lr": learning_rate(self.counters.step - 1, self.train),
            "seconds": round(self.position.seconds + self.counters.seconds, 3),
            "skipped": self.counters.skipped,
            "samples_per_s": self._samples_per_s(),
        }
        write_row(self.accelerator, self.log, row)
        return row

    @property
    def _whole_step(self) -> int:
        """Optimizer steps of all phases so far."""
        return self.position.first_step + self.counters.step

    def _samples_per_s(self) -> float:
        return round(self.rows_per_step * self.counters.step / max(self.counters.seconds, 1e-9), 1)

    def _finish(self, captions: Mapping[str, Any]) -> dict[str, Any]:
        validation, average = self.parts.validation, self.parts.average
        counters = self.counters
        done = PhaseDone(
            "unet",
            counters.step,
            counters.step * self.rows_per_step,
            counters.seconds,
            counters.cpu_seconds,
            self.flops.unet,
            self.flops.unet_share,
        )
        summary = whole_summary([*self.position.done, done]) | {
            "skipped_steps": counters.skipped,
            "method": self.train.method,
            "start": self.setup.adapter.config.start,
            **warm_start_record(self.config),
            "trained_parameters": self.trained.num_parameters,
            "records": self.setup.data.num_records,
            "culture_samples": self.setup.data.num_culture_samples,
            "captions": dict(captions),
            "targets": self.train.targets,
            "peak_gpu_memory_bytes": peak_gpu_memory_bytes(self.accelerator.device),
        }
        values = None if average is None else average.tensors
        if validation is not None and validation.best:
            summary |= {"best_step": validation.best_step, "best_validation_loss": validation.best_loss}
            summary |= {"stopped_early": True} if validation.is_over else {}
            values = validation.best
        if self.accelerator.is_main_process:
            with self.trained.holding(values):
                publish(self.config, self.setup.adapter, self.setup.teacher.unet, self.log.rows(), summary)
        self.accelerator.wait_for_everyone()
        return summary

    def _say(self, text: str) -> None:
        self.console.print(text)


def peak_gpu_memory_bytes(device: torch.device) -> int:
    """Most bytes of tensors that were held on a GPU at a time; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
