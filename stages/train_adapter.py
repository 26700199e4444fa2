"""Train the adapter from the cache (or, with `train.targets=live`, the original way, asking the teacher at every step).

    pea train --config configs/demo.yaml
    accelerate launch -m stages.train_adapter --config FILE          (several GPUs)
    torchrun --nproc_per_node 2 -m stages.train_adapter --config FILE

A run consists of the phases of `train.phases`. To resume, run the same command: finished phases and the newest saved
state of the next one are taken up, and the result is the same, bit for bit on CPU, as if it had not been broken off.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from pea.config import Config
from pea.cpu import flushed_denormals
from pea.file_names import TRAIN_LOG
from pea.storage import Location
from pea.storage.leases import Lease, take
from pea.storage.temporaries import clear_old_temporaries
from pea.training.train_log import TrainLog
from stages.command.common import stage_main
from stages.command.console import Console
from stages.command.preflight import preflight_training
from stages.training.caches import open_distilled
from stages.training.output import describe, publish
from stages.training.phase import PhasePosition, first_position, late_peaks, whole_summary
from stages.training.setup import prepare
from stages.training.sources import check_captions
from stages.training.start import Start
from stages.training.text_tables import TextTables
from stages.training.trackers import chosen_trackers, finish_trackers, start_trackers
from stages.training.warm_start import warm_start_record
from stages.training.with_unet import WithUnetPhase, peak_gpu_memory_bytes
from stages.training.without_unet import run_without_unet


def run(config: Config, console: Console) -> dict[str, Any]:
    """Train the configured adapter; returns the summary that is also in `training/train_summary.json`.

    Raises:
        IdentityError: a cache was not made from this teacher, scheduler, corpus or recipe.
        CacheError: a phase needs what the cache does not hold, or captions in the student's languages are missing.
        CheckpointError: a model folder is missing or unusable.
        ConfigError: a setting does not fit the others, or asks for a package that is not installed.
        TrainingError: the loss stays not finite, or there is nothing to resume from where that is asked for.
        LeaseHeldError: another training is busy in the same folder.
    """
    unchecked = preflight_training(config)
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
    for line in unchecked:
        console.print(f"unchecked: {line}", soft_wrap=True)
    start_trackers(accelerator, config)
    captions = check_captions(config, console)
    with _owned(config, accelerator) as lease, flushed_denormals():
        summary = _run_phases(config, accelerator, console, lease, captions)
    console.print(f"adapter in {config.adapter_dir}: {describe(summary)}")
    finish_trackers(accelerator)
    accelerator.wait_for_everyone()
    return summary


@contextmanager
def _owned(config: Config, accelerator: Accelerator) -> Iterator[Lease | None]:
    """The adapter's folder belongs to this run: a second one would overwrite its states. None: not the main process."""
    if not accelerator.is_main_process:
        yield None
        return
    for folder in (config.adapter_dir, config.training_dir):
        folder.mkdir(parents=True, exist_ok=True)
    with take(Location.parse(config.adapter_dir) / "training", "pea train") as lease:
        for folder in (config.adapter_dir, config.training_dir):
            clear_old_temporaries(Location.parse(folder))
        yield lease


def _run_phases(
    config: Config, accelerator: Accelerator, console: Console, lease: Lease | None, captions: Mapping[str, Any]
) -> dict[str, Any]:
    """Every phase in turn; returns the summary. `captions`: what it says of the samples that have some."""
    start = Start(config, open_distilled(config), TextTables(config, accelerator.device))
    position = first_position(config, lambda: start.cache.num_samples, accelerator.num_processes)
    for line in late_peaks(position.phases):
        console.print(line)
    parameters = None
    while True:
        settings = position.settings(config)
        if position.phase.kind == "unet":
            setup = prepare(settings, accelerator.device, accelerator.num_processes, position.former, start)
            if parameters is not None:
                setup.adapter.load_state_dict(parameters)
            return WithUnetPhase(settings, setup, accelerator, console, position, lease).run(captions)
        result = run_without_unet(settings, position, parameters, start, accelerator, console, lease)
        position, parameters = position.after(result.done, resumed=result.resumed), result.parameters
        if not result.finished or position.is_over:
            if lease is not None:
                lease.confirm()
            return _publish(config, position, parameters, start, accelerator, captions)


def _publish(
    config: Config,
    position: PhasePosition,
    parameters: Mapping[str, Tensor],
    start: Start,
    accelerator: Accelerator,
    captions: Mapping[str, Any],
) -> dict[str, Any]:
    """Publish the adapter as a phase without the UNet has left it; returns the summary."""
    done = config.train.phases[: len(position.done)]
    config = config.model_copy(update={"train": config.train.model_copy(update={"phases": done})})
    cache, adapter = start.cache, start.adapter()
    adapter.load_state_dict(parameters)
    summary = whole_summary(position.done) | {
        "skipped_steps": 0,
        "method": config.train.method,
        "start": adapter.config.start,
        **warm_start_record(config),
        "trained_parameters": sum(parameter.numel() for parameter in adapter.parameters()),
        "records": sum(bucket.num_records for shard in cache.shards for bucket in shard.buckets.values()),
        "culture_samples": 0,
        "captions": dict(captions),
        "targets": config.train.targets,
        "peak_gpu_memory_bytes": peak_gpu_memory_bytes(accelerator.device),
    }
    if accelerator.is_main_process:
        publish(config, adapter, None, TrainLog(config.training_dir / TRAIN_LOG).rows(), summary)
    accelerator.wait_for_everyone()
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return stage_main(run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
