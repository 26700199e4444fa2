"""The warm start: train the adapter on cached attention queries, without a pass of the UNet.

It comes before the first UNet step, has an optimizer, a cosine schedule, saved states (`adapter/attention_states`) and
a log (`adapter/attention_log.jsonl`) of its own, and is resumed like the rest by the same command.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from pea.attention import AttentionLayers, AttentionLosses
from pea.attention_data import AttentionBatch, AttentionData
from pea.cache import Cache
from pea.config import Config
from pea.encoders import EnglishEncoder, on_device
from pea.errors import TrainingError
from pea.train_state import TrainState, TrainStates, optimizer_tensors, restore_optimizer
from stages.progress import StageProgress
from stages.train_output import TrainLog
from stages.train_setup import Setup


def train_attention(
    config: Config, setup: Setup, adapter: nn.Module, accelerator: Accelerator, console: Console
) -> None:
    """Do `train.attention_steps` steps on the adapter (or its distributed wrapper), in place.

    Raises:
        CacheError: the cache holds no queries.
        TrainingError: a loss or a gradient is not finite.
    """
    AttentionPhase(config, setup, adapter, accelerator).run(console)


class AttentionPhase:
    """The loop of the warm start."""

    def __init__(self, config: Config, setup: Setup, adapter: nn.Module, accelerator: Accelerator) -> None:
        self.train, self.setup, self.adapter, self.accelerator = config.train, setup, adapter, accelerator
        device, checkpoint = accelerator.device, config.teacher.checkpoint
        layers = config.cache.attention.layers if config.cache.attention else "all"
        self.layers = AttentionLayers.from_checkpoint(checkpoint, layers, device=device)
        empty = EnglishEncoder.from_checkpoint(checkpoint, getattr(torch, config.teacher.dtype)).encode([""])
        self.data = AttentionData(
            Cache.open(config.cache_dir("parallel")),
            config.student.training_language or config.student.language,
            self.train.attention_batch_size,
            self.train.seed,
            on_device([None if part is None else part.float() for part in empty], "cpu"),
        )
        named = dict(setup.adapter.named_parameters())
        self.names, self.parameters = list(named), list(named.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.train.attention_learning_rate, weight_decay=self.train.weight_decay
        )
        self.states = TrainStates(config.adapter_dir / "attention_states", self.train.keep_states)
        self.log = TrainLog(config.adapter_dir / "attention_log.jsonl")
        self.step, self.seconds = 0, 0.0

    def run(self, console: Console) -> None:
        """From the newest saved state of the same run to the last step."""
        self._resume()
        steps, every, start = self.train.attention_steps, self.train.log_every_steps, self.step
        with StageProgress(console, "attention", "records") as progress:
            while self.step < steps:
                started = time.perf_counter()
                losses = self._optimizer_step()
                self.seconds += time.perf_counter() - started
                if self.step % every == 0 or self.step == steps:
                    self._log_row(losses)
                progress.update(self.step, steps, (self.step - start) * self.train.attention_batch_size, "")
                if self.step % self.train.save_every_steps == 0 or self.step == steps:
                    self._save()

    def _optimizer_step(self) -> AttentionLosses:
        rate = attention_rate(self.step, self.train.attention_steps, self.train.attention_learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        index = self.step * self.accelerator.num_processes + self.accelerator.process_index
        losses = self._losses(self.data.batch(index))
        self.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters, self.train.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                "the loss or its gradient is not finite",
                where=f"attention step {self.step}",
                got=losses.total.item(),
                remedy="Lower train.attention_learning_rate.",
            )
        self.optimizer.step()
        self.step += 1
        return losses

    def _losses(self, batch: AttentionBatch) -> AttentionLosses:
        device = self.accelerator.device
        hidden, mask = self.setup.native_states(batch.native_captions)
        assert hidden is not None
        student = self.adapter(hidden.to(device), None if mask is None else mask.to(device))
        queries = {name: rows.to(device) for name, rows in batch.queries.items()}
        return self.layers.losses(queries, student, on_device(batch.english, device), batch.time_ids.to(device))

    def _resume(self) -> None:
        state = None if self.train.resume == "never" else self.states.newest()
        if state is not None and state.record["fingerprint"] == self.setup.fingerprint:
            self.step, self.seconds = state.step, state.record["seconds"]
            self.setup.adapter.load_state_dict(state.tensors["adapter"])
            restore_optimizer(self.optimizer, self.names, state.tensors["optimizer"])
        elif self.accelerator.is_main_process:
            self.states.clear()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.log.keep(self.step)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            record: dict[str, Any] = {"fingerprint": self.setup.fingerprint, "seconds": self.seconds}
            tensors = {
                "adapter": dict(self.setup.adapter.named_parameters()),
                "optimizer": optimizer_tensors(self.optimizer, self.names),
            }
            self.states.save(TrainState(self.step, record, tensors))
        self.accelerator.wait_for_everyone()

    def _log_row(self, losses: AttentionLosses) -> None:
        if self.accelerator.is_main_process:
            values = {name: value.item() for name, value in losses.report().items()}
            self.log.append({"step": self.step, **values, "seconds": round(self.seconds, 3)})


def attention_rate(step: int, steps: int, peak: float) -> float:
    """Learning rate of attention step `step` (from 0): a short linear warmup, then a cosine that ends at 0."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
