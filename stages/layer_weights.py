"""Weights of cross-attention layers in the loss on queries: by how much the teacher's noise prediction depends on each.

    python -m stages.layer_weights --config configs/demo.yaml --out weights.yaml
    pea train --config configs/demo.yaml --config weights.yaml

Needs a filled cache. In passes over the cache's first records, normal noise of a hundredth of the layer's mean square
is added to one layer's output at a time; a layer's sensitivity is the mean square of what that changes at the end. The
loss divides a layer's error by the same mean square, so that the sensitivity is its weight. Weights have a mean of 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from pea.config import Config
from pea.models.english import EnglishEncoder
from pea.models.unet import layer_names
from pea.storage.durable import write_text
from pea.training.signals import english_conditioning
from stages.command.arguments import at_least_one, local_path
from stages.command.common import add_config_arguments, config_from, guarded
from stages.command.console import Console
from stages.command.run_folder import working
from stages.training.setup import distilling_alone, prepare

_NOISE = 0.1


class LayerMeasure(NamedTuple):
    """What was measured of one layer."""

    sensitivity: float
    """Change of the noise prediction, as a mean square, per disturbance relative to the layer's own mean square."""
    mean_square: float
    """Of its output."""


@torch.no_grad()
def measure(config: Config, num_records: int) -> dict[str, LayerMeasure]:
    """Cross-attention layer -> what was measured of it, in the UNet's order.

    Raises:
        CacheError, IdentityError, CheckpointError: cache or models cannot be read, or do not fit the configuration.
    """
    train = distilling_alone(config.train, batch_size=num_records)
    device = torch.device("cuda" if torch.cuda.is_available() and train.device == "auto" else "cpu")
    setup = prepare(config.model_copy(update={"train": train}), device)
    teacher, batch = setup.teacher, setup.data.batch(0).to(device)
    encoder = EnglishEncoder.from_checkpoint(config.teacher.folder, teacher.unet.dtype, device)
    english = english_conditioning(encoder.encode, batch, device)
    noisy = teacher.add_noise(batch.latents, batch.noise, batch.timesteps)
    powers: dict[str, float] = {}

    def noise_pred() -> Tensor:
        rows = slice(batch.num_parallel)
        return teacher.forward(noisy[rows], batch.timesteps[rows], english, batch.time_ids[rows]).noise_pred.float()

    def change_through(name: str) -> float:
        def disturbed(output: Tensor) -> Tensor:
            powers[name] = float(output.float().square().mean())
            noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output)
            return output + _NOISE * powers[name] ** 0.5 * noise

        with teacher.changing(name, disturbed):
            return float((noise_pred() - calm).square().mean()) / _NOISE**2

    calm = noise_pred()
    return {name: LayerMeasure(change_through(name), powers[name]) for name in layer_names(teacher.unet)}


def settings(weights: Mapping[str, float]) -> str:
    """A file of settings with these weights, scaled to a mean of 1."""
    mean = sum(weights.values()) / len(weights)
    lines = [f"    {name}: {value / mean:.4g}" for name, value in weights.items()]
    head = ["# Made by stages/layer_weights.py.", "train:", "  attention_layer_weights:"]
    return "\n".join([*head, *lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument(
        "--records", type=at_least_one, default=64, metavar="N", help="records to measure on (default: 64)"
    )
    parser.add_argument("--by", choices=LayerMeasure._fields, default="sensitivity", help="what the weights are")
    parser.add_argument("--out", type=local_path, required=True, metavar="FILE", help="the file to write")
    arguments = parser.parse_args(argv)

    def act() -> int:
        with working(config_from(arguments), "layer weights", publishes=False) as config:
            found = measure(config, arguments.records)
        table = Table("layer", "sensitivity", "mean square")
        for name, (sensitivity, mean_square) in found.items():
            table.add_row(name, f"{sensitivity:.3g}", f"{mean_square:.3g}")
        console = Console()
        console.print(table)
        write_text(arguments.out, settings({name: getattr(each, arguments.by) for name, each in found.items()}))
        console.print(arguments.out)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
