"""How much the teacher's noise prediction depends on each cross-attention layer: factors for its share of the loss.

    python -m tests.benchmarks.layer_sensitivity --config configs/demo.yaml --config configs/demo_phases.yaml

Needs a filled cache. In passes over the cache's first records, normal noise of a hundredth of the layer's mean square
is added to one layer's output at a time; a layer's sensitivity is the mean square of what that changes at the end.
Writes two method files for `pea sweep`: `sensitivity.yaml`, and `raw.yaml`, in which a layer weighs as much as its
output is large. Factors have a mean of 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pea.config import load_config
from pea.encoders import EnglishEncoder
from pea.files import write_text
from pea.teacher import Teacher, layer_names
from stages.common import guarded
from stages.train_setup import prepare
from tests.benchmarks import harness

_NOISE = 0.1


@torch.no_grad()
def sensitivities(config_files: list[Path], overrides: list[str], num_records: int) -> tuple[dict[str, float], ...]:
    """Layer -> change of the noise prediction, and layer -> mean square of its output."""
    config = load_config(config_files, overrides)
    train = {"batch_size": num_records, "culture_fraction": 0.0, "phases": (), "text_weight": 0.0}
    setup = prepare(config.model_copy(update={"train": config.train.model_copy(update=train)}), torch.device("cpu"))
    teacher: Teacher = setup.teacher
    batch = setup.data.batch(0)
    text = EnglishEncoder.from_checkpoint(config.teacher.checkpoint).encode(batch.english_captions)
    noisy = teacher.add_noise(batch.latents, batch.noise, batch.timesteps)

    def noise_pred() -> Tensor:
        return teacher.forward(noisy, batch.timesteps, text, batch.time_ids).noise_pred

    calm, changes, powers = noise_pred(), {}, {}
    for name in layer_names(teacher.unet):

        def disturb(_module: object, _inputs: object, output: Tensor, name: str = name) -> Tensor:
            powers[name] = float(output.square().mean())
            noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
            return output + _NOISE * powers[name] ** 0.5 * noise

        handle = teacher.unet.get_submodule(name).register_forward_hook(disturb)
        changes[name] = float((noise_pred() - calm).square().mean()) / _NOISE**2
        handle.remove()
    return changes, powers


def method(what: str, factors: Mapping[str, float]) -> str:
    """A method file with these factors, scaled to a mean of 1."""
    mean = sum(factors.values()) / len(factors)
    lines = [f"    {name}: {value / mean:.4g}" for name, value in factors.items()]
    head = [f"# Layers of the attention loss weighted by {what}.", "train:", "  attention_layer_weights:"]
    return "\n".join([*head, *lines, ""])


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write the method files."""
    load = harness.load()
    parser = harness.parser(__doc__, "layer_sensitivity")
    parser.add_argument("--config", type=Path, action="append", required=True)
    parser.add_argument("--records", type=int, default=64)
    parser.add_argument("--methods", type=Path, default=Path("runs/bench/layer_weights"), help="where the files go")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)

    def act() -> int:
        changes, powers = sensitivities(arguments.config, arguments.overrides, arguments.records)
        arguments.methods.mkdir(parents=True, exist_ok=True)
        write_text(arguments.methods / "sensitivity.yaml", method("the UNet's sensitivity to them", changes))
        write_text(arguments.methods / "raw.yaml", method("the mean square of their outputs", powers))
        rows = [[name, f"{changes[name]:.3g}", f"{powers[name]:.3g}"] for name in changes]
        text = harness.table(["layer", "sensitivity", "mean square"], rows)
        harness.publish(arguments.out, text, {"sensitivity": changes, "mean_square": powers}, load)
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
