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
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor, nn

from pea.adapter import PEA
from pea.batch import Batch
from pea.config import Config
from pea.dataset import prefetch
from pea.encoders import on_device
from pea.errors import TrainingError
from pea.losses import Losses, LossWeights
from pea.schedule import learning_rate
from pea.student import student_losses
from pea.train_state import (
    MovingAverage,
    TrainState,
    TrainStates,
    differing_names,
    optimizer_tensors,
    restore_optimizer,
)
from stages.common import stage_main
from stages.progress import StageProgress
from stages.train_attention import train_attention
from stages.train_output import LossMeter, TrainLog, publish_adapter
from stages.train_setup import Setup, prepare

TEXT_ALONE = LossWeights(noise_pred=0.0, features=0.0, diffusion=0.0, text=1.0)


class Trainer:
    """The loop: steps, saved states, the log."""

    def __init__(self, config: Config, setup: Setup, accelerator: Accelerator, console: Console) -> None:
        self.config, self.train, self.setup = config, config.train, setup
        self.accelerator, self.console = accelerator, console
        self.adapter: PEA = setup.adapter.to(accelerator.device)
        self.names = [name for name, _ in self.adapter.named_parameters()]
        optimizer = torch.optim.AdamW(
            self.adapter.parameters(),
            lr=self.train.learning_rate,
            betas=(0.9, self.train.adam_beta2),
            weight_decay=self.train.weight_decay,
        )
        self.wrapped: nn.Module
        self.wrapped, self.optimizer = accelerator.prepare(self.adapter, optimizer)
        self.average = MovingAverage(self.adapter, self.train.ema_decay) if self.train.ema_decay else None
        self.states = TrainStates(config.adapter_dir / "states", self.train.keep_states)
        self.log = TrainLog(config.adapter_dir / "train_log.jsonl")
        self.weights = LossWeights(
            self.train.noise_pred_weight,
            self.train.feature_weight,
            setup.block_weights,
            self.train.diffusion_weight,
            self.train.text_weight,
        )
        self.step, self.skipped, self.streak, self.seconds = 0, 0, 0, 0.0
        self.rows_per_step = self.train.batch_size * self.train.gradient_accumulation_steps * accelerator.num_processes
        self.meter = LossMeter()

    def run(self) -> dict[str, Any]:
        """Train to the last step and publish the adapter; returns the summary."""
        self.resume()
        if self.train.attention_steps and self.step == 0:
            train_attention(self.config, self.setup, self.wrapped, self.accelerator, self.console)
            if self.average is not None:
                self.average = MovingAverage(self.adapter, self.train.ema_decay or 0.0)
        batches = prefetch(self.setup.data.batch, self._indices(), self.train.num_workers)
        start, steps, note = self.step, self.train.steps, ""
        with StageProgress(self.console, "training", "samples") as progress:
            while self.step < steps:
                started = time.perf_counter()
                self._optimizer_step(batches)
                self.seconds += time.perf_counter() - started
                if self.step % self.train.log_every_steps == 0 or self.step == steps:
                    note = f"loss {self._log_row()['loss']:.4f}"
                progress.update(self.step, steps, (self.step - start) * self.rows_per_step, note)
                if self.step % self.train.save_every_steps == 0 or self.step == steps:
                    self._save()
        return self._finish()

    def resume(self) -> None:
        """Take up the newest saved state of the same run.

        Raises:
            TrainingError: `train.resume` is `must` and there is no such state.
        """
        state = None if self.train.resume == "never" else self.states.newest()
        differing = differing_names(state.record["fingerprint"], self.setup.fingerprint) if state else []
        if state is None or differing:
            why = f"the saved state is of another run ({', '.join(differing)})" if differing else "no saved state"
            if self.train.resume == "must":
                raise TrainingError("cannot resume", where=self.states.folder, got=why)
            if differing:
                self._say(f"training anew: {why}")
            if self.accelerator.is_main_process:
                self.states.clear()
                self.log.keep(0)
            self.accelerator.wait_for_everyone()
            return
        self._restore(state)
        self._say(f"resumed at step {self.step} of {self.train.steps}")

    def _indices(self) -> Any:
        """Indices of this process's batches, from the current step on."""
        per_step = self.train.gradient_accumulation_steps
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        return (number * world + rank for number in range(self.step * per_step, self.train.steps * per_step))

    def _optimizer_step(self, batches: Any) -> None:
        """One step over `gradient_accumulation_steps` batches; skipped when a loss or gradient is not finite."""
        if self.step and self.step == self.train.text_steps:
            self.optimizer.state.clear()  # the gradients of the loss that begins here are of another size
        rate = learning_rate(self.step, self.train)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        count = self.train.gradient_accumulation_steps
        finite, names = True, []
        for number in range(count):
            batch = next(batches)
            names += batch.names
            losses = self._losses(batch.to(self.accelerator.device))
            finite = finite and self._everywhere(torch.isfinite(losses.total).all())
            if finite:
                self.meter.add(losses)
                self._backward(losses.total / count, last=number == count - 1)
        norm = self.accelerator.clip_grad_norm_(self.adapter.parameters(), self.train.max_grad_norm) if finite else None
        # With fp16, an overflow of the gradients is the scaler's business: it skips the step and lowers its scale.
        if norm is not None and (self.accelerator.scaler is not None or self._everywhere(torch.isfinite(norm).all())):
            self.optimizer.step()
            self.streak = 0
            if self.average is not None:
                self.average.update(self.adapter)
        else:
            self._skip(names)
        self.step += 1

    def _losses(self, batch: Batch) -> Losses:
        hidden, mask = self.setup.native_states(batch.native_captions)
        assert hidden is not None
        device = self.accelerator.device
        english = None
        if self.setup.english_states is not None:
            english = on_device(self.setup.english_states(batch.english_captions), device)
        with self.accelerator.autocast():
            return student_losses(
                batch,
                hidden.to(device),
                None if mask is None else mask.to(device),
                self.wrapped,
                self.setup.teacher,
                self.setup.source,
                TEXT_ALONE if self.step < self.train.text_steps else self.weights,
                self.train.min_snr_gamma,
                diffusion_on_all=self.train.diffusion_rows == "all",
                english=english,
            )

    def _backward(self, loss: Tensor, *, last: bool) -> None:
        if last:
            self.accelerator.backward(loss)
            return
        with self.accelerator.no_sync(self.wrapped):
            self.accelerator.backward(loss)

    def _everywhere(self, flag: Tensor) -> bool:
        """Whether a flag holds in every process."""
        held: Tensor = self.accelerator.reduce(flag.float().reshape(1), "sum")
        return int(held.item()) == self.accelerator.num_processes

    def _skip(self, names: list[str]) -> None:
        self.optimizer.zero_grad()
        self.skipped, self.streak = self.skipped + 1, self.streak + 1
        if self.streak >= self.train.max_skipped_steps:
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise TrainingError(
                f"no finite loss in {self.streak} consecutive steps",
                where=f"step {self.step}",
                got=f"records {shown}",
                remedy="Lower train.learning_rate, or use train.precision=bf16 or no.",
            )

    def _log_row(self) -> dict[str, float]:
        """Means of the losses since the last row, over all processes."""
        row: dict[str, float] = {"step": self.step}
        for name, value in self.meter.take_means().items():
            row[name] = float(self.accelerator.reduce(value, "mean").item())
        row.setdefault("loss", float("nan"))
        row |= {
            "lr": learning_rate(self.step - 1, self.train),
            "seconds": round(self.seconds, 3),
            "skipped": self.skipped,
        }
        row["samples_per_s"] = round(self.rows_per_step * self.step / max(self.seconds, 1e-9), 1)
        if self.accelerator.is_main_process:
            self.log.append(row)
        return row

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            record = {name: getattr(self, name) for name in ("skipped", "streak", "seconds")}
            record["meter"] = self.meter.state()
            record["fingerprint"] = self.setup.fingerprint
            if self.accelerator.scaler is not None:
                record["scaler"] = self.accelerator.scaler.state_dict()
            tensors = {
                "adapter": dict(self.adapter.named_parameters()),
                "optimizer": optimizer_tensors(self.optimizer, self.names),
            }
            if self.average is not None:
                tensors["average"] = self.average.tensors
            self.states.save(TrainState(self.step, record, tensors))
        self.accelerator.wait_for_everyone()

    def _restore(self, state: TrainState) -> None:
        self.step = state.step
        for name in ("skipped", "streak", "seconds"):
            setattr(self, name, state.record[name])
        self.meter.restore(state.record["meter"], self.accelerator.device)
        self.adapter.load_state_dict(state.tensors["adapter"])
        restore_optimizer(self.optimizer, self.names, state.tensors.get("optimizer", {}))
        if self.average is not None:
            self.average.tensors = {name: t.to(self.accelerator.device) for name, t in state.tensors["average"].items()}
        if self.accelerator.scaler is not None and "scaler" in state.record:
            self.accelerator.scaler.load_state_dict(state.record["scaler"])
        if self.accelerator.is_main_process:
            self.log.keep(self.step)

    def _finish(self) -> dict[str, Any]:
        summary = {
            "steps": self.step,
            "skipped_steps": self.skipped,
            "seconds": round(self.seconds, 2),
            "samples_per_s": round(self.rows_per_step * self.step / max(self.seconds, 1e-9), 1),
            "trained_parameters": sum(p.numel() for p in self.adapter.parameters()),
            "records": self.setup.data.num_records,
            "culture_samples": self.setup.data.num_culture_samples,
            "targets": self.train.targets,
        }
        if self.accelerator.is_main_process:
            published = self.adapter
            if self.average is not None:
                published = PEA.from_config(self.adapter.config)
                published.load_state_dict(self.average.tensors)
            publish_adapter(self.config, published, self.log.rows(), summary)
            self._say(f"adapter in {self.config.adapter_dir}: {json.dumps(summary)}")
        self.accelerator.wait_for_everyone()
        return summary

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False)


def run(config: Config, console: Console) -> dict[str, Any]:
    """Train the configured adapter; returns the summary that is also in `adapter/train_summary.json`.

    Raises:
        IdentityError: a cache was not made from this teacher, scheduler, corpus or recipe.
        CheckpointError: a model folder is missing or unusable.
        TrainingError: the loss stays not finite, or there is nothing to resume from where that is asked for.
    """
    AcceleratorState._reset_state()  # noqa: SLF001 - else a second run in one process cannot have another precision
    accelerator = Accelerator(mixed_precision=config.train.precision, cpu=config.train.device == "cpu")
    if not accelerator.is_main_process:
        console = Console(quiet=True)
    setup = prepare(config, accelerator.device, accelerator.num_processes)
    return Trainer(config, setup, accelerator, console).run()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return stage_main(run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
