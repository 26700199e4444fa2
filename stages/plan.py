"""What a cache will cost and save, before any GPU is used: sizes, teacher passes, GPU-hours, bandwidth, break-even.

    pea plan --config configs/sdxl.yaml --samples 1000000 --tflops 350
    pea plan --config configs/sd15.yaml --preset sd15 --samples 1000000 --languages 3 --json

Only configurations are read (of the checkpoint, or of a preset); feature shapes and arithmetic come from the real UNet
class on the meta device. Numbers of samples come from the tars where they are there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from pea.config import Config, resolved_yaml
from pea.config.inputs import with_inputs_fetched
from pea.errors import ConfigError, CorpusError
from pea.file_names import CACHE_SUMMARY
from pea.storage import Location
from pea.training.recipe import with_recipe
from stages.command.arguments import above_zero, at_least_one
from stages.command.common import add_config_arguments, config_from
from stages.command.console import Console
from stages.command.preflight import preflight_plan

PRESETS = Path(__file__).with_name("plan_presets.json")
LONGEST_TAR_MINUTES = 30
"""What is lost with a worker is one tar: larger ones are warned of."""
_SAMPLES_PER_TAR = 10_000  # where the tars are not there yet
_GB = 1e9


@dataclass(frozen=True)
class Plan:
    """The numbers of one bucket: the first of ``cache.buckets``, which stands for all."""

    bucket: str
    blocks: dict[str, dict[str, float]]
    """Block -> bytes per record in float16 and as stored."""
    bytes_per_record: float
    """As stored, with its share of the sample."""
    exact_fp16_bytes_per_record: int
    """All blocks whole in float16, uncompressed."""
    num_samples: int
    num_draws: int
    num_records: int
    total_bytes: float
    attention: dict[str, float] | None
    """Of the cached attention queries, where there are any: bytes per record, and TFLOP per record of training on
    them alone."""
    teacher_tflop_per_record: float
    """Caching: UNet, and the record's share of VAE and English encoders."""
    student_tflop_per_record: float
    """Training from the cache."""
    records_per_s: float | None
    """Of the teacher, per GPU."""
    rate_source: str
    gpu_hours: float | None
    largest_tar_minutes: float | None
    """Of one GPU, lost at most with a worker or its node."""
    student_records_per_s: float | None
    read_mb_per_s: float | None
    """That the trainer needs, per GPU."""
    records_used: float
    """In the UNet's passes of all planned training."""
    break_even_uses: float
    """Epochs x languages x runs from which on the cache pays."""
    planned_uses: float
    """Epochs x languages x runs."""
    saving: float
    step_speedup: float
    verdict: str
    memory: dict[str, float]
    """Kind of work -> most bytes that are held at a time, on the device that does it; see ``pea.costs.memory``."""


def make_plan(config: Config, arguments: argparse.Namespace) -> Plan:
    """All numbers.

    Raises:
        CheckpointError: the checkpoint has no configurations, and no preset is named.
        ConfigError: the number of samples is unknown, or the bucket does not fit the models.
    """
    from pea.collect.layout import layouts_of
    from pea.costs import caching
    from pea.costs.attention import attention_costs
    from pea.costs.memory import memory_needs

    models = _preset(arguments.preset) if arguments.preset else caching.read_models(config.teacher.folder)
    bucket = config.cache.buckets[0]
    first = config.cache.model_copy(update={"buckets": (bucket,)})
    [(name, layout)] = layouts_of(models.vae, models.unet, first, models.num_tokens).items()
    flops = caching.flops(models, layout, bucket)
    if config.corpora.parallel.texts is not None:
        drawing = config.corpora.parallel.drawing
        layout = replace(layout, trajectory=drawing.form == "trajectory")
        flops = replace(flops, vae=drawing.passes * flops.unet)  # the image is drawn, and not encoded
    size = caching.sizes(layout)
    num_draws = config.cache.draws_per_sample
    num_samples, num_tars, largest_tar = _corpus_size(config, arguments.samples)
    num_records = num_samples * num_draws
    rate, source = _rate(config, arguments, flops.caching(num_draws))
    student_rate = None if rate is None else rate * flops.caching(num_draws) / flops.student
    used = _records_used(config, num_samples)
    planned = used * arguments.languages * arguments.runs / max(1, num_records)
    even = caching.break_even(flops, num_draws, planned)
    per_record = size.record + size.sample / num_draws
    return Plan(
        bucket=name,
        blocks={b: {"fp16": size.exact_fp16_blocks[b], "stored": size.blocks[b]} for b in size.blocks},
        bytes_per_record=per_record,
        exact_fp16_bytes_per_record=sum(size.exact_fp16_blocks.values()),
        num_samples=num_samples,
        num_draws=num_draws,
        num_records=num_records,
        total_bytes=size.total(num_samples, num_draws, num_tars),
        attention=attention_costs(models.unet, layout, num_draws),
        teacher_tflop_per_record=flops.caching(num_draws) / 1e12,
        student_tflop_per_record=flops.student / 1e12,
        records_per_s=rate,
        rate_source=source,
        gpu_hours=None if rate is None else num_records / rate / 3600,
        largest_tar_minutes=None if rate is None else largest_tar * num_draws / rate / 60,
        student_records_per_s=student_rate,
        read_mb_per_s=None if student_rate is None else student_rate * per_record / 1e6,
        records_used=used * arguments.languages * arguments.runs,
        break_even_uses=even.uses,
        planned_uses=planned,
        saving=even.saving,
        step_speedup=even.speedup,
        verdict=_verdict(even),
        memory=memory_needs(config, models, layout, largest_tar),
    )


def _verdict(even: Any) -> str:
    if not even.planned:
        return "no pass of the UNet is planned, so there is no online training to compare the cache with"
    if even.online_is_better:
        return (
            f"online distillation is the better choice: each record is used {even.planned:.2f} times, "
            f"and the cache pays from {even.uses:.2f} on (more epochs, languages or runs, or fewer draws)"
        )
    step = f"a training step is {even.speedup:.1f}x faster"
    return f"the cache pays: it saves {even.saving:.0%} of all arithmetic, and {step}"


def _records_used(config: Config, num_samples: int) -> float:
    """Parallel records in the UNet's passes of one run, in one process."""
    last, width = config.train.all_phases[-1], config.student.adapter.hidden_size
    kind, train = with_recipe(last, width, 1, lambda: num_samples)
    culture = train.culture_fraction if config.corpora.culture else 0.0
    per_step = train.batch_size * train.gradient_accumulation_steps
    assert train.steps is not None
    return train.steps * per_step * (1 - culture) if kind == "unet" else 0.0


def _preset(name: str) -> Any:
    from pea.costs.caching import Models

    raw = json.loads(PRESETS.read_text(encoding="utf-8"))[name]
    return Models(raw["unet"], raw["vae"], raw["text"])


def _corpus_size(config: Config, given: int | None) -> tuple[int, int, int]:
    """(samples, tars, samples of the largest tar): as given, or counted in the tars."""
    from pea.corpus.corpus_names import DISTILLED
    from pea.corpus.tars import expand_tars, expected_samples
    from pea.corpus.texts import text_parts

    texts = config.corpora.parallel.text_source
    if given is not None:
        per_tar = _SAMPLES_PER_TAR if texts is None else texts.rows_per_part
        return given, max(1, given // per_tar), min(given, per_tar)
    try:
        counts = []
        for source in (config.corpora.source(name) for name in config.corpora.names if name in DISTILLED):
            if source.text_source is not None:
                counts += [part.num_rows for part, _ in text_parts(source.text_source)]
            else:
                counts += [expected_samples(tar) for tar in expand_tars(source.tars)]
    except CorpusError as error:
        raise ConfigError(
            "the number of samples is unknown", got=error, remedy="Give it with --samples, or provide the tars."
        ) from error
    return sum(counts), len(counts), max(counts)


def _rate(config: Config, arguments: argparse.Namespace, flop_per_record: float) -> tuple[float | None, str]:
    """Records per second and GPU of the caching run, and where the number comes from."""
    if arguments.records_per_s:
        return arguments.records_per_s, "as given"
    if arguments.tflops:
        return arguments.tflops * 1e12 / flop_per_record, f"from {arguments.tflops:g} TFLOP/s per GPU, as given"
    path = config.cache_dir("parallel") / CACHE_SUMMARY
    try:
        summary = json.loads(Location.parse(path).read_text())
        rate = summary["records"] / summary["seconds"] / config.cache.run.num_actors
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None, "unknown: give --records-per-s (measured) or --tflops (of the GPU)"
    return (rate or None), f"measured by the last run, {path}"


def show(plan: Plan, console: Console) -> None:
    """The plan for a person."""
    table = Table("block", "whole, fp16", "stored", "ratio", title=f"Bytes per record, bucket {plan.bucket}")
    for block, size in plan.blocks.items():
        table.add_row(
            block, f"{size['fp16']:,.0f}", f"{size['stored']:,.0f}", f"{size['fp16'] / max(1, size['stored']):.1f}x"
        )
    exact, stored = plan.exact_fp16_bytes_per_record, sum(size["stored"] for size in plan.blocks.values())
    table.add_section()
    table.add_row("all blocks", f"{exact:,.0f}", f"{stored:,.0f}", f"{exact / max(1, stored):.1f}x")
    table.add_row("with noise_pred, latents", "", f"{plan.bytes_per_record:,.0f}", "")
    console.print(table)
    for line in _lines(plan):
        console.print(f"  {line}")


def _lines(plan: Plan) -> list[str]:
    counted = f"{plan.num_samples:,} samples x {plan.num_draws} draws = {plan.num_records:,} records"
    arithmetic = f"{plan.teacher_tflop_per_record:.2f} TFLOP per record with its share of image and text"
    lines = [
        f"cache: {counted}, {plan.total_bytes / _GB:,.3f} GB",
        f"teacher: {plan.num_records:,} UNet passes, {arithmetic}",
    ]
    if plan.attention is not None:
        size, tflop = plan.attention["bytes_per_record"], plan.attention["tflop_per_record"]
        lines.append(
            f"attention queries: {size / 1e3:,.1f} kB per record; training on them, {tflop:.3g} TFLOP per record"
        )
    if plan.records_per_s is None or plan.gpu_hours is None or plan.read_mb_per_s is None:
        lines.append(f"GPU-hours: {plan.rate_source}")
    else:
        lines.append(f"GPU-hours: {plan.gpu_hours:,.2f} at {plan.records_per_s:,.1f} records/s ({plan.rate_source})")
        lines.append(_at_stake(plan.largest_tar_minutes or 0.0))
        lines.append(
            f"trainer: {plan.student_records_per_s:,.1f} records/s per GPU at the same arithmetic rate, "
            f"reading {plan.read_mb_per_s:,.1f} MB/s"
        )
    return [
        *lines,
        "memory at most: " + ", ".join(f"{name} {size / _GB:,.1f} GB" for name, size in plan.memory.items()),
        f"break-even: {plan.break_even_uses:.2f} epochs x languages x runs; planned {plan.planned_uses:.2f}",
        f"verdict: {plan.verdict}",
    ]


def _at_stake(minutes: float) -> str:
    line = f"a worker that is lost takes at most one tar along: {minutes:,.1f} minutes of its GPU"
    if minutes <= LONGEST_TAR_MINUTES:
        return line
    return f"warning: {line}, more than {LONGEST_TAR_MINUTES}; cut the corpus into smaller tars"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea plan``."""
    add_config_arguments(parser)
    names = list(json.loads(PRESETS.read_text(encoding="utf-8")))
    parser.add_argument("--preset", choices=names, help="model shapes to use instead of the checkpoint folder's")
    parser.add_argument(
        "--samples", type=at_least_one, metavar="N", help="parallel samples, where the tars are not there yet"
    )
    parser.add_argument("--records-per-s", type=above_zero, metavar="R", help="teacher's rate per GPU, as measured")
    parser.add_argument(
        "--tflops", type=above_zero, metavar="T", help="arithmetic rate that a GPU sustains, in TFLOP/s"
    )
    parser.add_argument(
        "--languages", type=at_least_one, default=1, metavar="N", help="adapters from this cache (default: 1)"
    )
    parser.add_argument(
        "--runs", type=at_least_one, default=1, metavar="N", help="training runs per language (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Run with parsed arguments."""
    config = config_from(arguments)
    if arguments.dry_run:
        print(resolved_yaml(config), end="")
        return 0
    config = with_inputs_fetched(config)
    unchecked = preflight_plan(config, with_teacher=not arguments.preset)
    plan = make_plan(config, arguments)
    if arguments.json:
        print(json.dumps(asdict(plan), indent=2))
    else:
        console = Console()
        show(plan, console)
        for line in unchecked:
            console.print(f"  unchecked: {line}", soft_wrap=True)
    return 0
