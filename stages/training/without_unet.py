"""A phase without the UNet: the adapter learns from texts alone, or also from the teacher's cached attention queries.

It holds neither UNet nor images. It has saved states of its own (`training/phases/1-text`, ...), and is resumed like
the rest by the same command; once finished, its result is taken up as long as nothing changes that decides it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pea.attention.layers import Powers
from pea.batches.attention_batches import AttentionBatch
from pea.batches.dataset import prefetch
from pea.config import Config
from pea.costs.training import RowFlops
from pea.errors import TrainingError
from pea.file_names import TRAIN_LOG
from pea.storage.leases import Lease
from pea.training.losses import root, text_distance
from pea.training.saved_state import TrainState, TrainStates, optimizer_tensors, restore_optimizer
from pea.training.schedule import learning_rate
from pea.training.student import condition
from pea.training.train_log import TrainLog
from stages.command.console import Console
from stages.command.progress import StageProgress
from stages.command.run_folder import publish_so_far
from stages.training.caches import open_distilled
from stages.training.fingerprints import differing_settings, fingerprint_without_unet
from stages.training.output import LossMeter
from stages.training.phase import (
    PhaseDone,
    PhasePosition,
    early_end,
    expected_steps,
    out_of_time,
    states_folder,
    write_row,
)
from stages.training.start import Start
from stages.training.without_unet_setup import WithoutUnetSetup, prepare_without_unet


class PhaseResult(NamedTuple):
    """What a phase leaves."""

    done: PhaseDone
    parameters: dict[str, Tensor]
    """The adapter's, by name, on the CPU."""
    finished: bool
    """Whether all of its steps are done; not so where its time was over."""
    resumed: bool
    """Whether a saved state of it was taken up."""


def run_without_unet(
    config: Config,
    position: PhasePosition,
    former: Mapping[str, Tensor] | None,
    start: Start,
    accelerator: Accelerator,
    console: Console,
    lease: Lease | None,
) -> PhaseResult:
    """Do a phase's steps, or take up what they gave when they were done before.

    `config`: with the phase's settings; `former`: the adapter's parameters after the phase before; `start`: of the run;
    `lease`: of the run's folder, in the main process.

    Raises:
        CacheError: the cache holds no queries, and the phase needs them.
        IdentityError: it is not the cache that this configuration describes.
        TrainingError: a loss or a gradient is not finite, or there is nothing to resume from where that is asked for.
    """
    cache, kind = open_distilled(config), position.phase.kind
    states = TrainStates(states_folder(config, position.number, kind), config.train.keep_states)
    phases = position.phases[: position.number]
    fingerprint = fingerprint_without_unet(config, cache, phases, accelerator.num_processes) | start.fingerprint
    states.tidy()
    state = None if config.train.resume == "never" else states.newest()
    state = _checked(state, fingerprint, config, position, states)
    if state is not None and state.step == config.train.steps:
        done = _done(position, state.step, state.record, accelerator.num_processes)
        return PhaseResult(done, state.tensors["adapter"], finished=True, resumed=True)
    setup = prepare_without_unet(config, cache, start, accelerator.device, with_queries=kind == "attention")
    if former is not None:
        setup.adapter.load_state_dict(former)
    phase = WithoutUnetPhase(config, position, setup, accelerator, lease)
    phase.take_up(state)
    if state is None and accelerator.is_main_process:
        states.clear()
    accelerator.wait_for_everyone()
    phase.run(states, fingerprint, console)
    accelerator.free_memory()
    parameters = {name: parameter.detach().cpu() for name, parameter in setup.adapter.named_parameters()}
    done = _done(position, phase.step, phase.record(), accelerator.num_processes)
    return PhaseResult(done, parameters, finished=phase.step == config.train.steps, resumed=state is not None)


def _checked(
    state: TrainState | None, fingerprint: dict[str, Any], config: Config, position: PhasePosition, states: TrainStates
) -> TrainState | None:
    """The saved state, if it is of this phase."""
    differing = differing_settings(state.record["fingerprint"], fingerprint) if state else []
    if state is not None and not differing:
        return state
    if config.train.resume == "must":
        other = f"the saved state is of another run ({', '.join(differing)})"
        why = other if differing else ", ".join(states.damaged) or "no saved state"
        raise TrainingError(f"cannot resume {position.name}", where=states.folder, got=why)
    return None


def _done(position: PhasePosition, steps: int, record: dict[str, Any], num_processes: int) -> PhaseDone:
    rows = steps * position.phase.train.batch_size * num_processes
    return PhaseDone(
        position.phase.kind, steps, rows, record["seconds"], record.get("cpu_seconds"), record["row_flops"]
    )


class WithoutUnetPhase:
    """The loop of a phase without the UNet."""

    def __init__(
        self,
        config: Config,
        position: PhasePosition,
        setup: WithoutUnetSetup,
        accelerator: Accelerator,
        lease: Lease | None = None,
    ) -> None:
        self.lease = lease
        self.train, self.position, self.setup, self.accelerator = config.train, position, setup, accelerator
        named = dict(setup.adapter.named_parameters())
        self.names, self.parameters = list(named), list(named.values())
        optimizer = torch.optim.AdamW(
            self.parameters,
            lr=self.train.learning_rate,
            betas=(0.9, self.train.adam_beta2),
            weight_decay=self.train.weight_decay,
        )
        self.adapter: nn.Module
        self.adapter, self.optimizer = accelerator.prepare(setup.adapter, optimizer)
        self.powers = None if setup.layers is None else self._powers()
        self.log = TrainLog(config.training_dir / TRAIN_LOG)
        self.meter = LossMeter()
        flops = RowFlops(config, setup.adapter, setup.data.rows_of_epoch)
        self.row_flops = flops.text if setup.layers is None else flops.attention
        self.step, self.seconds = 0, 0.0
        self.cpu_seconds: float | None = 0.0
        self.config = config

    def take_up(self, state: TrainState | None) -> None:
        """Go on from a saved state, or begin; the log forgets what comes after."""
        if state is not None:
            self.step, self.seconds = state.step, state.record["seconds"]
            self.cpu_seconds = state.record.get("cpu_seconds")
            self.setup.adapter.load_state_dict(state.tensors["adapter"])
            restore_optimizer(self.optimizer, self.names, state.tensors["optimizer"])
            self.meter.restore(state.record["meter"], self.accelerator.device)
        if self.accelerator.is_main_process:
            self.log.keep(self.position.first_step + self.step)

    def record(self) -> dict[str, Any]:
        """What a summary says of the phase."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "row_flops": self.row_flops}

    def run(self, states: TrainStates, fingerprint: dict[str, Any], console: Console) -> None:
        """To the last step, or until the run's time is over."""
        steps, first = self.train.steps, self.step
        finished = out_of_time(self.accelerator, self.position, self.seconds)
        with (
            closing(prefetch(self.setup.data.batch, self._indices(), self.train.num_workers)) as batches,
            StageProgress(console, self.position.phase.kind, "records") as progress,
        ):
            while not finished:
                started, cpu_started = time.perf_counter(), time.process_time()
                self._optimizer_step(next(batches))
                self.seconds += time.perf_counter() - started
                if self.cpu_seconds is not None:
                    self.cpu_seconds += time.process_time() - cpu_started
                finished = self.step == steps or out_of_time(self.accelerator, self.position, self.seconds)
                if finished or self.step % self.train.log_every_steps == 0:
                    self._log_row()
                if finished or self.step % self.train.save_every_steps == 0:
                    self._save(states, fingerprint)
                expected = expected_steps(self.position, self.step, steps, self.seconds)
                progress.update(self.step, expected, (self.step - first) * self.train.batch_size)
        if said := early_end(self.position, self.step, steps, in_time=False):
            console.print(said)

    def _indices(self) -> Iterator[int]:
        """Indices of this process's batches, from the current step on."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        return (step * world + rank for step in range(self.step, self.train.steps))

    def _optimizer_step(self, batch: AttentionBatch) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.train)
        losses = self._losses(batch)
        self.optimizer.zero_grad()
        self.accelerator.backward(losses["loss"])
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.train.max_grad_norm or math.inf)
        # With fp16, an overflow of the gradients is the scaler's business: it skips the step and lowers its scale.
        if self.accelerator.scaler is None and not torch.isfinite(norm):
            raise TrainingError(
                "the loss or its gradient is not finite",
                where=f"{self.position.name}, step {self.step}",
                got=losses["loss"].item(),
                remedy="Lower the learning_rate of the phase.",
            )
        self.optimizer.step()
        self.meter.add({name: value.detach() for name, value in losses.items()})
        self.step += 1

    def _losses(self, batch: AttentionBatch) -> dict[str, Tensor]:
        """`loss`, to be differentiated, and its parts."""
        device, pooled = self.accelerator.device, batch.native_pooled_captions
        hidden, mask = self._native(batch.native_captions)
        student = condition(self.adapter, hidden, mask, None if pooled is None else self._native(pooled))
        targets = batch.targets.to(device)
        english = targets.english
        if self.setup.layers is None or self.powers is None:
            text = text_distance(student, english)
            errors = root(text) if self.train.text_error == "distance" else text
            return {"loss": errors.mean(), "text": text.mean()}
        losses = self.setup.layers.losses(targets, student, self.powers, self.train.attention_layer_weights)
        found = {"loss": losses.total, "attention": losses.layers}
        if losses.pooled is not None:
            found["pooled"] = losses.pooled
        if self.train.text_weight:
            found["text"] = text_distance(student, english).mean()
            found["loss"] = losses.total + self.train.text_weight * found["text"]
        return found

    def _native(self, captions: list[str]) -> tuple[Tensor, Tensor | None]:
        hidden, mask = self.setup.native_states(captions)
        assert hidden is not None
        device = self.accelerator.device
        return hidden.to(device), None if mask is None else mask.to(device)

    def _powers(self) -> Powers:
        """The scale of the losses, from the first batches of the phase, whichever step it resumes at."""
        assert self.setup.layers is not None
        device = self.accelerator.device
        return self.setup.layers.first_powers(lambda index: self.setup.data.batch(index).targets.to(device))

    def _save(self, states: TrainStates, fingerprint: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            record = {"fingerprint": fingerprint, "meter": self.meter.state(), **self.record()}
            tensors = {
                "adapter": dict(self.setup.adapter.named_parameters()),
                "optimizer": optimizer_tensors(self.optimizer, self.names),
            }
            if self.lease is not None:
                self.lease.confirm()
            states.save(TrainState(self.step, record, tensors))
            publish_so_far(self.config)
        self.accelerator.wait_for_everyone()

    def _log_row(self) -> None:
        """Means of the losses since the last row, over all processes."""
        row: dict[str, float] = {"step": self.position.first_step + self.step, "phase": self.position.number}
        for name, value in self.meter.take_means().items():
            row[name] = float(self.accelerator.reduce(value, "mean").item())
        rows = self.step * self.train.batch_size * self.accelerator.num_processes
        row |= {
            "lr": learning_rate(self.step - 1, self.train),
            "seconds": round(self.position.seconds + self.seconds, 3),
            "samples_per_s": round(rows / max(self.seconds, 1e-9), 1),
        }
        write_row(self.accelerator, self.log, row)
