"""What a GPU gives, in one go: run this wherever one is at hand, and put the figures into docs/results/gpu.md.

    python -m tests.benchmarks.gpu                   (SD1.5 at 512 px, SDXL at 1024 px, random weights: under 8 minutes)
    python -m tests.benchmarks.gpu --teachers sd15
    python -m tests.benchmarks.gpu --tiny            (the same on tiny models, on a CPU too: does it run?)

Needs torch, transformers, diffusers and the storage libraries; no Ray. For each teacher, side by side:

* caching (decode, VAE, English encoders, teacher, sketches, queries, write) against the bare teacher's passes;
* a training step from the cache against the original online one, with and without checkpointing, bf16 and fp16;
* a step of the attention phase; the share of a training step that is spent waiting for data;
* sketches and draws on this device against the CPU's; fp16 and bf16 teachers against float32;
* peak memory and seconds against what `pea plan` says.

A part that does not fit into the time (`--minutes`) or the memory is left out, and said to be.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pea.batches.dataset import prefetch
from pea.cache import Cache
from pea.collect.layout import bucket_layouts
from pea.config import Config
from pea.costs import caching as costs
from pea.costs.memory import memory_needs
from pea.draws.recipe import DrawRecipe, noise_batch
from pea.models.conditioning import Conditioning
from pea.models.unet import Teacher, UNetOutput
from pea.models.vae import sample_latents
from stages.command.common import guarded
from stages.training.start import Start
from stages.training.text_tables import TextTables
from stages.training.without_unet_setup import prepare_without_unet
from tests.benchmarks import harness
from tests.benchmarks.bench_caching import Caching
from tests.benchmarks.bench_training import Steps
from tests.benchmarks.real_models import SIZES_PX, make_config, make_corpus, make_student, make_teacher

_BATCH = {"sd15": 16, "sdxl": 4}
_KINDS = ("cached", "online", "original")
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}
Row = tuple[str, str, Any, str]
"""Teacher, what, value, unit."""


class Report:
    """Rows as they come, so that what broke off still says what it found."""

    def __init__(self, minutes: float) -> None:
        self.rows: list[Row] = []
        self._end = time.monotonic() + 60 * minutes

    def add(self, teacher: str, what: str, value: Any, unit: str) -> None:
        """One figure; numbers are rounded to four digits."""
        self.rows.append((teacher, what, float(f"{value:.4g}") if isinstance(value, float) else value, unit))

    def part(self, teacher: str, what: str, measure: Callable[[], object]) -> None:
        """Where there is no room or no time for it, a row says so."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        why = "no time left" if time.monotonic() > self._end else ""
        try:
            if not why:
                measure()
        except torch.OutOfMemoryError:
            why = "out of memory"
        if why:
            self.add(teacher, what, f"left out: {why}", "")

    @property
    def text(self) -> str:
        """A table."""
        return harness.table(["teacher", "what", "value", "unit"], self.rows)


def peak_gb() -> float:
    """Most bytes of tensors on the GPU since the part began; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


def measure_teacher(name: str, device: torch.device, folder: Path, report: Report, rounds: int) -> None:
    """Everything about one teacher."""
    shape, tiny = name.removeprefix("tiny-"), name.startswith("tiny-")
    batch = 2 if tiny else _BATCH[shape]
    make_teacher(folder / "teacher", name, device)
    make_student(folder / "student", "tiny" if tiny else "L", device)
    make_corpus(folder, 2 * batch, SIZES_PX[name])
    dtype = "float32" if tiny else "bfloat16"
    config = make_config(folder, name, dtype, batch_size=batch)
    report.part(name, "caching", lambda: measure_caching(name, config, device, folder, report, rounds))
    for precision in ("no",) if tiny else ("bf16", "fp16"):
        for checkpointing in (False, True):
            how = f"{_PRECISIONS[precision]}{', checkpointing' if checkpointing else ''}"
            changed = {"precision": precision, "gradient_checkpointing": checkpointing}
            setup = config.model_copy(update={"train": config.train.model_copy(update=changed)})
            report.part(name, f"training, {how}", partial(measure_training, name, how, setup, device, report, rounds))
    report.part(name, "attention phase", lambda: measure_attention(name, config, device, report, rounds))
    report.part(name, "errors", lambda: measure_errors(name, config, device, report))


def measure_caching(name: str, config: Config, device: torch.device, folder: Path, report: Report, rounds: int) -> None:
    """Records a second, each way; and what `pea plan` foretells."""
    caching = Caching(config, device, folder / "run", None)
    caching.collect()
    seconds = harness.interleave({way: act for way, act in caching.ways().items() if way != "models"}, rounds)
    for way, each in seconds.items():
        report.add(name, f"caching: {way}", caching.num_records / statistics.median(each), "records/s")
    report.add(name, "caching: speed against the bare passes", harness.ratio(seconds["bare"], seconds["collector"]), "")
    models = costs.read_models(config.teacher.folder)
    [layout] = bucket_layouts(config.teacher.folder, config.cache).values()
    flops = costs.flops(models, layout, config.cache.buckets[0]).caching(config.cache.draws_per_sample)
    rate = caching.num_records / statistics.median(seconds["collector"])
    report.add(name, "caching: arithmetic", rate * flops / 1e12, "TFLOP/s")
    size = costs.sizes(layout)
    planned = size.total(caching.num_records // config.cache.draws_per_sample, config.cache.draws_per_sample, 1)
    stored = sum(path.stat().st_size for path in config.cache_dir("parallel").rglob("*.zarr/**/*") if path.is_file())
    report.add(name, "caching: bytes against the plan", stored / planned, "")
    needs = memory_needs(config, models, layout, caching.num_records // config.cache.draws_per_sample)
    report.add(name, "caching: peak memory", peak_gb(), "GB")
    report.add(name, "caching: peak memory, planned", needs["caching"] / 1e9, "GB")


def measure_training(name: str, how: str, config: Config, device: torch.device, report: Report, rounds: int) -> None:
    """Rows a second of each kind of step, the wait for data, and the memory of the cached one."""
    steps = Steps(config, device, 2)
    [layout] = bucket_layouts(config.teacher.folder, config.cache).values()
    needs = memory_needs(config, costs.read_models(config.teacher.folder), layout, 1 << 20)
    other = [steps.own_unet, steps.vae, steps.english]  # of the kinds that the memory is not asked about
    held = sum(_bytes(getattr(each, "unet", getattr(each, "vae", None))) for each in other)
    steps.steps("cached")
    before = peak_gb() - held / 1e9
    acts = {kind: act for kind, act in steps.kinds().items() if kind in _KINDS}
    seconds = harness.interleave(acts, rounds)
    rows = sum(map(len, steps.batches))
    for kind, each in seconds.items():
        report.add(name, f"training, {how}: {kind}", rows / statistics.median(each), "rows/s")
    report.add(name, f"training, {how}: online over cached", harness.ratio(seconds["online"], seconds["cached"]), "")
    report.add(
        name, f"training, {how}: original over cached", harness.ratio(seconds["original"], seconds["cached"]), ""
    )
    report.add(name, f"training, {how}: waiting for data", 100 * waiting(steps), "% of a step")
    if torch.cuda.is_available():
        report.add(name, f"training, {how}: peak memory", before, "GB")
        report.add(name, f"training, {how}: peak memory, planned", needs["training"] / 1e9, "GB")


def _bytes(model: torch.nn.Module | None) -> int:
    return 0 if model is None else sum(each.numel() * each.element_size() for each in model.parameters())


def waiting(steps: Steps, count: int = 8) -> float:
    """Share of the time of cached steps in which the next batch is not there yet; the first is not counted."""
    waited, total = 0.0, 0.0
    indices = (number % steps.num_steps for number in range(count + 1))
    with closing(prefetch(steps.setup.data.batch, indices, max(1, steps.num_workers))) as batches:
        for number in range(count + 1):
            started = time.perf_counter()
            batch = next(batches).to(steps.device)
            fetched = time.perf_counter()
            steps.step("cached", batch)
            _wait()
            if number:
                waited, total = waited + fetched - started, total + time.perf_counter() - started
    return waited / total


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_attention(name: str, config: Config, device: torch.device, report: Report, rounds: int) -> None:
    """Records a second of the attention phase."""
    cache = Cache.open(config.cache_dir("parallel"))
    start = Start(config, cache, TextTables(config, device))
    setup = prepare_without_unet(config, cache, start, device, with_queries=True)
    layers = setup.layers
    assert layers is not None
    powers = layers.first_powers(lambda index: setup.data.batch(index).targets.to(device))
    optimizer = torch.optim.AdamW(setup.adapter.parameters(), lr=1e-4)
    batches = [setup.data.batch(index) for index in range(2)]

    def step() -> None:
        for batch in batches:
            hidden, mask = (
                None if part is None else part.to(device) for part in setup.native_states(batch.native_captions)
            )
            losses = layers.losses(batch.targets.to(device), setup.adapter(hidden, mask), powers)
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()

    seconds = harness.interleave({"attention": step}, rounds)["attention"]
    report.add(name, "attention phase", 2 * config.train.batch_size / statistics.median(seconds), "records/s")
    report.add(name, "attention phase: peak memory", peak_gb(), "GB")


@torch.inference_mode()
def measure_errors(name: str, config: Config, device: torch.device, report: Report) -> None:
    """This device against the CPU, and teachers in half precision against float32; relative, of the whole tensor."""
    checkpoint = config.teacher.folder
    [layout] = bucket_layouts(checkpoint, config.cache).values()
    recipe = DrawRecipe(config.cache.seed, config.cache.caption_drop_rate, 1000)
    noise = torch.from_numpy(noise_batch(recipe, ["t/k"], [0], layout.latent_shape))
    mean, std = (torch.full_like(noise, value) for value in (0.3, 0.7))
    latents = sample_latents(mean, std, noise, 0.18215)
    on_device = sample_latents(mean.to(device), std.to(device), noise.to(device), 0.18215).cpu()
    report.add(name, "latents: this device against the CPU", _relative(on_device, latents), "relative")
    unet = costs.read_models(checkpoint).unet
    text = torch.randn(1, 77 if not name.startswith("tiny-") else 12, int(unet["cross_attention_dim"]))
    pooled = int(unet.get("projection_class_embeddings_input_dim") or 0) - 6 * int(
        unet.get("addition_time_embed_dim") or 0
    )
    conditioning = Conditioning(text.to(device), torch.randn(1, pooled).to(device) if pooled > 0 else None)
    time_ids = torch.zeros(1, 6, dtype=torch.int64, device=device)

    def answer(dtype: torch.dtype) -> UNetOutput:
        teacher = Teacher.from_checkpoint(checkpoint, config.cache.blocks, dtype, device, channels_last=True)
        given = Conditioning(*(None if part is None else part.to(dtype) for part in conditioning))
        return teacher.forward(latents.to(device), torch.tensor([500], device=device), given, time_ids)

    exact = answer(torch.float32)
    worst = 0.0
    for block, sketch in layout.sketches.items():
        ids = torch.tensor([12345], dtype=torch.int64)
        ours = sketch.encode(exact.features[block], ids.to(device))
        theirs = sketch.encode(exact.features[block].cpu(), ids)
        worst = max(worst, *(_relative(ours[each].cpu(), theirs[each]) for each in theirs))
    report.add(name, "sketches: this device against the CPU, the worst block", worst, "relative")
    for dtype in (torch.float16, torch.bfloat16):
        found = answer(dtype)
        what = f"teacher in {str(dtype).removeprefix('torch.')} against float32"
        report.add(name, f"{what}: noise_pred", _relative(found.noise_pred, exact.noise_pred), "relative")
        errors = [_relative(found.features[block], value) for block, value in exact.features.items()]
        report.add(name, f"{what}: features, the worst block", max(errors), "relative")


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp(min=1e-30))


def main(argv: list[str] | None = None) -> int:
    """Measure and publish."""
    load = harness.load()
    parser: argparse.ArgumentParser = harness.parser(__doc__, "gpu")
    parser.set_defaults(device="cuda" if torch.cuda.is_available() else "cpu", rounds=3)
    parser.add_argument("--teachers", nargs="+", choices=tuple(_BATCH), default=list(_BATCH))
    parser.add_argument("--minutes", type=float, default=7.0, help="nothing is begun after these (default: 7)")
    parser.add_argument("--tiny", action="store_true", help="tiny models, on a CPU too")
    arguments = parser.parse_args(argv)

    def act() -> int:
        report, started = Report(arguments.minutes), time.monotonic()
        for shape in arguments.teachers:
            with tempfile.TemporaryDirectory(prefix="pea-gpu-") as folder:
                name = f"tiny-{shape}" if arguments.tiny else shape
                measure_teacher(name, torch.device(arguments.device), Path(folder), report, arguments.rounds)
        report.add("all", "seconds", time.monotonic() - started, "s")
        rows = [dict(zip(("teacher", "what", "value", "unit"), row, strict=True)) for row in report.rows]
        harness.publish(arguments.out, report.text, {"rows": rows}, load)
        return 0

    if arguments.device == "cpu" and not arguments.tiny:
        print("no GPU here: nothing is measured; --tiny tries the script out", file=sys.stderr)
        return 2
    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
