"""The warm start: train the adapter on cached attention queries, without a pass of the UNet.

It comes before everything else and holds neither UNet nor images. It has an optimizer, a cosine schedule, saved states
(`adapter/attention_states`) and a log (`adapter/attention_log.jsonl`) of its own, and is resumed like the rest by the
same command; once finished, its result is taken up as long as nothing changes that decides it.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor, nn

from pea.attention import AttentionLosses, Powers
from pea.attention_data import AttentionBatch
from pea.config import Config
from pea.dataset import prefetch
from pea.encoders import NativeEncoder, on_device
from pea.errors import TrainingError
from pea.losses import text_distance
from pea.student import condition
from pea.teacher import unet_config
from pea.train_state import TrainState, TrainStates, optimizer_tensors, restore_optimizer
from stages.attention_setup import (
    AttentionSetup,
    attention_fingerprint,
    open_parallel,
    prepare_attention,
    untrained_adapter,
)
from stages.progress import StageProgress
from stages.train_output import TrainLog, publish

_MAX_POWER_BATCHES = 8


@dataclass(frozen=True)
class WarmStart:
    """The finished phase."""

    parameters: dict[str, Tensor]
    """The adapter's, by name."""
    seconds: float
    """Time in its loop."""


def warm_start(config: Config, accelerator: Accelerator, console: Console) -> WarmStart:
    """Do `train.attention_steps` steps, or take up what they gave when they were done before.

    Raises:
        CacheError: the cache holds no queries.
        IdentityError: it is not the cache that this configuration describes.
        TrainingError: a loss or a gradient is not finite.
    """
    cache = open_parallel(config)
    state = None if config.train.resume == "never" else _states(config).newest()
    wanted = attention_fingerprint(config, cache, accelerator.num_processes)
    if state is not None and state.record["fingerprint"] == wanted and state.step == config.train.attention_steps:
        return WarmStart(state.tensors["adapter"], state.record["seconds"])
    setup = prepare_attention(config, cache, accelerator.device, accelerator.num_processes)
    phase = AttentionPhase(config, setup, accelerator)
    phase.run(console)
    accelerator.free_memory()
    parameters = {name: parameter.detach().cpu() for name, parameter in setup.adapter.named_parameters()}
    return WarmStart(parameters, phase.seconds)


def publish_warm_start(config: Config, warm: WarmStart, accelerator: Accelerator, console: Console) -> dict[str, Any]:
    """Publish the phase's adapter as it is; returns the summary."""
    steps, train = config.train.attention_steps, config.train
    cache = open_parallel(config)
    encoder = NativeEncoder.from_pretrained(config.student.encoder)
    adapter = untrained_adapter(config, unet_config(config.teacher.checkpoint), encoder, cache.identity)
    adapter.load_state_dict(warm.parameters)
    summary = {
        "steps": steps,
        "skipped_steps": 0,
        "seconds": round(warm.seconds, 2),
        "samples_per_s": round(steps * train.attention_batch_size * accelerator.num_processes / warm.seconds, 1),
        "method": train.method,
        "trained_parameters": sum(parameter.numel() for parameter in adapter.parameters()),
        "records": sum(bucket.num_records for shard in cache.shards for bucket in shard.buckets.values()),
        "culture_samples": 0,
        "targets": "attention queries",
    }
    if accelerator.is_main_process:
        publish(config, adapter, None, _log(config).rows(), summary)
        console.print(f"adapter in {config.adapter_dir}: {json.dumps(summary)}", highlight=False)
    accelerator.wait_for_everyone()
    return summary


class AttentionPhase:
    """The loop of the warm start."""

    def __init__(self, config: Config, setup: AttentionSetup, accelerator: Accelerator) -> None:
        self.train, self.setup, self.accelerator = config.train, setup, accelerator
        named = dict(setup.adapter.named_parameters())
        self.names, self.parameters = list(named), list(named.values())
        self.adapter: nn.Module = accelerator.prepare(setup.adapter)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.train.attention_learning_rate, weight_decay=self.train.weight_decay
        )
        self.powers = self._powers()
        self.states = _states(config)
        self.log = _log(config)
        self.step, self.seconds = 0, 0.0

    def run(self, console: Console) -> None:
        """From the newest saved state of the same phase to the last step."""
        self._resume()
        steps, every, start = self.train.attention_steps, self.train.log_every_steps, self.step
        batches = prefetch(self.setup.data.batch, self._indices(), self.train.num_workers)
        with StageProgress(console, "attention", "records") as progress:
            while self.step < steps:
                started = time.perf_counter()
                losses = self._optimizer_step(next(batches))
                self.seconds += time.perf_counter() - started
                if self.step % every == 0 or self.step == steps:
                    self._log_row(losses)
                progress.update(self.step, steps, (self.step - start) * self.train.attention_batch_size, "")
                if self.step % self.train.save_every_steps == 0 or self.step == steps:
                    self._save()

    def _indices(self) -> Any:
        """Indices of this process's batches, from the current step on."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        return (step * world + rank for step in range(self.step, self.train.attention_steps))

    def _optimizer_step(self, batch: AttentionBatch) -> AttentionLosses:
        rate = attention_rate(self.step, self.train.attention_steps, self.train.attention_learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, total = self._losses(batch)
        self.optimizer.zero_grad()
        self.accelerator.backward(total)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.train.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                "the loss or its gradient is not finite",
                where=f"attention step {self.step}",
                got=total.item(),
                remedy="Lower train.attention_learning_rate.",
            )
        self.optimizer.step()
        self.step += 1
        return losses

    def _losses(self, batch: AttentionBatch) -> tuple[AttentionLosses, Tensor]:
        """The losses of the layers, and the total with the distance between the text states."""
        device, pooled = self.accelerator.device, batch.native_pooled_captions
        hidden, mask = self._native(batch.native_captions)
        student = condition(self.adapter, hidden, mask, None if pooled is None else self._native(pooled))
        queries = {name: rows.to(device) for name, rows in batch.queries.items()}
        english, time_ids = on_device(batch.english, device), batch.time_ids.to(device)
        losses = self.setup.layers.losses(queries, student, english, time_ids, self.powers)
        weight = self.train.attention_text_weight
        return losses, losses.total + (weight * text_distance(student, english).mean() if weight else 0.0)

    def _native(self, captions: list[str]) -> tuple[Tensor, Tensor | None]:
        hidden, mask = self.setup.native_states(captions)
        assert hidden is not None
        device = self.accelerator.device
        return hidden.to(device), None if mask is None else mask.to(device)

    def _powers(self) -> Powers:
        """The scale of the losses, from the first batches of the phase, whichever step it resumes at."""
        device, layers, pooled = self.accelerator.device, {}, 1.0
        for index in range(_MAX_POWER_BATCHES):  # one is enough where every record keeps every layer
            batch = self.setup.data.batch(index)
            queries = {name: rows.to(device) for name, rows in batch.queries.items()}
            found = self.setup.layers.powers(queries, on_device(batch.english, device), batch.time_ids.to(device))
            layers, pooled = found.layers | layers, found.pooled if index == 0 else pooled
            if len(layers) == len(self.setup.layers.names):
                break
        return Powers(layers, pooled)

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


def _states(config: Config) -> TrainStates:
    return TrainStates(config.adapter_dir / "attention_states", config.train.keep_states)


def _log(config: Config) -> TrainLog:
    return TrainLog(config.adapter_dir / "attention_log.jsonl")
