"""What a training run leaves: the log, and the adapter's folder with its model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor, nn

from data_tools.tables import human_rate, human_seconds
from pea.config import Config
from pea.file_names import ADAPTER_WEIGHTS, LORA_FILE, MODEL_CONFIG, TRAIN_LOG, TRAIN_SUMMARY
from pea.models.adapter import PEA
from pea.models.trainable import save_unet
from pea.pipeline.card import CardFacts, model_card
from pea.plurals import count_of
from pea.storage.durable import fsync_path, fsync_tree, share_files, write_text
from pea.training.train_log import Row


class LossMeter:
    """Means of the losses since they were last taken; kept on the device, so that adding does not wait for it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one batch."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1

    def take_means(self) -> dict[str, Tensor]:
        """The mean of each term, and start anew."""
        means = {name: value / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """For a saved state; numbers are exact."""
        return {"sums": {name: value.item() for name, value in self._sums.items()}, "count": self._count}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Put back what `state` gave."""
        self._sums = {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}
        self._count = state["count"]


def publish(config: Config, adapter: PEA, unet: nn.Module | None, rows: list[Row], summary: dict[str, Any]) -> None:
    """Write all that belongs to the adapter; `config.json`, which makes it loadable, last.

    `unet`: the student's, of which parts may have been trained.
    """
    folder = config.adapter_dir
    for left_by_the_dead in folder.glob(".publish-*"):
        shutil.rmtree(left_by_the_dead, ignore_errors=True)
    (folder / MODEL_CONFIG).unlink(missing_ok=True)
    (folder / LORA_FILE).unlink(missing_ok=True)
    fsync_path(folder)
    temporary = Path(mkdtemp(dir=folder, prefix=".publish-"))
    try:
        adapter.save_pretrained(temporary)
        if unet is not None:
            save_unet(unet, config.train.method, config.teacher.folder, temporary)
        share_files(temporary)
        write_text(config.training_dir / TRAIN_LOG, "".join(json.dumps(row) + "\n" for row in rows))
        write_text(config.training_dir / TRAIN_SUMMARY, json.dumps(summary, indent=2) + "\n")
        write_text(folder / "README.md", card_of_run(config, adapter, rows, summary))
        fsync_tree(temporary)
        for name in (LORA_FILE, ADAPTER_WEIGHTS, MODEL_CONFIG):
            if (temporary / name).exists():
                (temporary / name).replace(folder / name)
                fsync_path(folder)
    finally:  # TemporaryDirectory's own clearing calls itself without end where nothing may be removed
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_path(folder)  # and it is gone for good


def card_of_run(config: Config, adapter: PEA, rows: list[Row], summary: dict[str, Any]) -> str:
    """The adapter's README: what it is, how to use it, what it was made from."""
    facts = CardFacts(
        place=str(config.adapter_dir),
        base=config.teacher.place,
        has_lora=config.train.method != "adapter",
        made=_made_from(config, adapter, rows, summary),
    )
    return model_card(adapter.config, facts)


def _made_from(config: Config, adapter: PEA, rows: list[Row], summary: dict[str, Any]) -> str:
    last = rows[-1] if rows else {}
    terms = ("loss", "noise_pred", "features", "diffusion", "attention", "text")
    losses = "\n".join(f"| {name} | {last[name]:.5f} |" for name in terms if name in last)
    train = config.train.all_phases[-1].train
    steps = ", ".join(f"{phase['steps']:,} ({phase['kind']})" for phase in summary["phases"])
    skipped = f" (skipped: {summary['skipped_steps']:,})" if summary["skipped_steps"] else ""
    culture = f", of which culture {train.culture_fraction:.0%}" if summary["culture_samples"] else ""
    sources = "\n".join(f"| {name} | {value} |" for name, value in _sources(summary).items())
    return f"""\
| | |
|---|---|
| method | {summary["method"]} |
| trained parameters | {summary["trained_parameters"]:,} |
| optimizer steps | {steps}{skipped} |
| batch{" of the last phase" if len(summary["phases"]) > 1 else ""} | {train.batch_size}{culture} |
{sources}
| identity of the cache | `{adapter.config.cache_identity}` |
{losses}
"""


def _sources(summary: Mapping[str, Any]) -> dict[str, str]:
    """What was trained on: texts alone ask for no answers of the teacher."""
    if {phase["kind"] for phase in summary["phases"]} == {"text"}:
        samples = summary["captions"].get("parallel", {}).get("with_caption", 0)
        return {"captions of parallel samples": f"{samples:,}"}
    sources = {"parallel records": f"{summary['records']:,}"}
    if summary["culture_samples"]:
        sources["culture samples"] = f"{summary['culture_samples']:,}"
    return sources | {"teacher's answers": summary["targets"]}


def describe(summary: Mapping[str, Any]) -> str:
    """A training in one line for a person."""
    seconds, skipped = summary["seconds"], summary["skipped_steps"]
    return ", ".join(
        [
            f"{count_of(summary['steps'], 'step')} in {human_seconds(seconds)}",
            human_rate(summary["samples_per_s"], 1, "samples"),
            *([f"{count_of(skipped, 'step')} skipped"] if skipped else []),
            f"{count_of(summary['trained_parameters'], 'trained parameter')}",
        ]
    )
