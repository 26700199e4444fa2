"""The attention phase at SDXL's and SD1.5's real widths and depths: seconds a record, peak memory, arithmetic.

    python -m tests.benchmarks.bench_attention               (SD1.5, small batches)
    python -m tests.benchmarks.bench_attention --full        (SDXL; writes 1 GB of random weights, and removes them)

The frozen cross-attention layers have random weights in the real shapes; queries and text states are generated. What
is timed is a whole optimizer step: stored queries to floats, adapter, layers with both texts, backward, AdamW. Reading
from disk is not in it, nor the native encoder, whose states a run keeps. The measured process holds what such a run
holds, and nothing else: it reads its layers by name from a safetensors file.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from pea.attention.layers import AttentionLayers, Powers
from pea.attention.queries import AttentionTargets, QueryLayout, encode_queries, read_queries
from pea.cache.schema import QUERY_LAYERS
from pea.collect.layout import layouts_of
from pea.config import AttentionConfig, CacheConfig
from pea.costs.attention import attention_flops, meta_parameters
from pea.costs.caching import Models, flops
from pea.models.adapter import PEA, new_adapter
from pea.models.conditioning import Conditioning
from stages.plan import PRESETS
from tests.benchmarks import harness

_NATIVE_WIDTH = 1024
_TOKENS = 77
_PASSED_ON = ("model", "layers_per_record", "num_queries", "batch_size", "dtype", "rounds")
_BUCKETS = {"sd15": (512, 512), "sdxl": (1024, 1024)}


def preset(name: str) -> Models:
    """The configurations of a published checkpoint."""
    raw = json.loads(PRESETS.read_text("utf-8"))[name]
    return Models(raw["unet"], raw["vae"], raw["text"])


def query_layout(name: str, layers_per_record: int | None, num_queries: int) -> QueryLayout:
    """What a cache of this model would keep."""
    models = preset(name)
    attention = AttentionConfig(num_queries=num_queries, layers_per_record=layers_per_record, dtype="int8")
    config = CacheConfig(buckets=(_BUCKETS[name],), attention=attention)
    [layout] = layouts_of(models.vae, models.unet, config).values()
    assert layout.queries is not None
    return layout.queries


def count(name: str, layers_per_record: int, num_queries: int) -> dict[str, float]:
    """TFLOP of one record, trained on in each way."""
    models, bucket, adapter = preset(name), _BUCKETS[name], make_adapter(name)
    [layout] = layouts_of(models.vae, models.unet, CacheConfig(buckets=(bucket,))).values()
    whole = flops(models, layout, bucket)
    some, every = (query_layout(name, each, num_queries) for each in (layers_per_record, None))
    counted = {
        f"attention phase, {layers_per_record} layers a record": attention_flops(models.unet, some, adapter),
        f"attention phase, all {len(every.positions)} layers": attention_flops(models.unet, every, adapter),
        "student pass from the cache": 2 * whole.unet,
        "online distillation": 3 * whole.unet + whole.vae + whole.text,
    }
    return {kind: value / 1e12 for kind, value in counted.items()}


def write_weights(name: str, folder: Path) -> None:
    """`<folder>/unet`: the configuration, and random bfloat16 tensors where the attention phase reads them."""
    unet = preset(name).unet
    generator, shapes = torch.Generator().manual_seed(0), meta_parameters(unet)
    tensors: dict[str, Tensor] = {}

    def take(module: str, names: Sequence[str]) -> dict[str, Tensor]:
        for each, empty in shapes(module, names).items():
            values = torch.randn(empty.shape, generator=generator) * empty.shape[-1] ** -0.5
            tensors[f"{module}.{each}"] = values.bfloat16()
        return {each: tensors[f"{module}.{each}"] for each in names}

    AttentionLayers.assemble(unet, take)
    (folder / "unet").mkdir(parents=True)
    config = {"_class_name": "UNet2DConditionModel", **unet}
    (folder / "unet" / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(tensors, folder / "unet" / "diffusion_pytorch_model.safetensors")


class Steps:
    """Optimizer steps on generated records."""

    def __init__(self, name: str, folder: Path, layout: QueryLayout, batch_size: int, dtype: torch.dtype) -> None:
        self.layout, self.batch_size, self.number = layout, batch_size, 0
        self.layers = AttentionLayers.from_checkpoint(folder, dtype=dtype)
        self.adapter = make_adapter(name)
        self.optimizer = torch.optim.AdamW(self.adapter.parameters(), lr=1e-4)
        self.specs = {spec.name: spec for spec in layout.arrays}
        pooled = None if layout.pooled_dim is None else torch.randn(batch_size, layout.pooled_dim).half()
        self.english = Conditioning(torch.randn(batch_size, *layout.text_shape).half(), pooled)
        self.native = torch.randn(batch_size, _TOKENS, _NATIVE_WIDTH)
        self.time_ids = torch.full((batch_size, 6), 1024)
        rng = np.random.default_rng(0)
        self.stored = [self._stored(rng) for _ in range(4)]
        self.powers = Powers(dict.fromkeys(layout.positions, 1.0))

    def step(self) -> None:
        """One step, from the stored form of the records on."""
        hidden, pooled = self.english
        english = Conditioning(hidden.float(), None if pooled is None else pooled.float())
        queries = read_queries(self.stored[self.number % len(self.stored)], self.specs)
        losses = self.layers.losses(
            AttentionTargets(queries, english, self.time_ids), self.adapter(self.native), self.powers
        )
        self.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.number += 1

    def _stored(self, rng: np.random.Generator) -> dict[str, Any]:
        """Random records as a cache holds them."""
        stored: dict[str, Any] = {}
        for group in self.layout.groups:
            shape = (self.batch_size, group.num_kept, *group.shape)
            queries = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
            for prefix, rows in encode_queries(queries, "int8").items():
                stored[f"{prefix}/{group.name}"] = rows.numpy()
            places = rng.permuted(np.tile(np.arange(len(group.layers)), (self.batch_size, 1)), axis=1)
            stored[f"{QUERY_LAYERS}/{group.name}"] = places[:, : group.num_kept].astype(np.int16)
        return stored


def make_adapter(name: str) -> PEA:
    """An adapter of the published size."""
    unet = preset(name).unet
    return new_adapter(unet, _NATIVE_WIDTH, hidden_size=1024, num_layers=2, max_tokens=_TOKENS, seed=0)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs in a process of its own: seconds of each step, and the most memory that the process ever had."""
    layout = query_layout(arguments.model, arguments.layers_per_record, arguments.num_queries)
    started = time.perf_counter()
    steps = Steps(arguments.model, folder, layout, arguments.batch_size, getattr(torch, arguments.dtype))
    loading, seconds = time.perf_counter() - started, []
    for number in range(arguments.rounds + 1):
        started = time.perf_counter()
        steps.step()
        if number:
            seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    held = sum(tensor.numel() for tensor in steps.layers.buffers())
    return {"loading_s": loading, "step_s": seconds, "peak_gib": peak, "frozen_parameters": held}


def report(arguments: argparse.Namespace, counted: Mapping[str, float], measured: Mapping[str, Any]) -> str:
    """The tables."""
    online = counted["online distillation"]
    text = harness.table(
        ["a record", "TFLOP", "of online"],
        [[kind, f"{value:.3g}", f"1/{online / value:.3g}"] for kind, value in counted.items()],
    )
    per_record = [seconds / arguments.batch_size for seconds in measured["step_s"]]
    rows = [
        ["seconds a record", harness.spread(per_record)],
        ["100,000 records, hours", f"{statistics.median(per_record) * 1e5 / 3600:.1f}"],
        ["peak memory, GiB", f"{measured['peak_gib']:.2f}"],
        ["frozen parameters held, 1e9", f"{measured['frozen_parameters'] / 1e9:.3f}"],
        ["reading them, seconds", f"{measured['loading_s']:.1f}"],
        ["bytes of a record's queries", f"{measured['query_bytes']:,}"],
    ]
    what = f"{arguments.model}, {arguments.dtype}, {arguments.batch_size} records a step"
    return text + "\n" + harness.table([what, ""], rows)


def options() -> argparse.ArgumentParser:
    """Options of this benchmark."""
    parser = harness.parser(__doc__, "attention")
    parser.add_argument("--model", choices=tuple(_BUCKETS), help="default: sd15, and sdxl with --full")
    parser.add_argument("--layers-per-record", type=int, default=8)
    parser.add_argument("--num-queries", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16, help="records in a step")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the frozen layers")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load, arguments = harness.load(), options().parse_args(argv)
    arguments.model = arguments.model or ("sdxl" if arguments.full else "sd15")
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments)))
        return 0
    counted = count(arguments.model, arguments.layers_per_record, arguments.num_queries)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(arguments.model, Path(folder))
        chosen = [f"--{n.replace('_', '-')}={getattr(arguments, n)}" for n in _PASSED_ON]
        command = [sys.executable, "-m", "tests.benchmarks.bench_attention", f"--measure={folder}", *chosen]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    layout = query_layout(arguments.model, arguments.layers_per_record, arguments.num_queries)
    measured["query_bytes"] = sum(spec.row_bytes for spec in layout.arrays if spec.level == "record")
    text = report(arguments, counted, measured)
    harness.publish(arguments.out, text, {"tflop": counted, "measured": measured}, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
