"""Everything that a plan says of a configuration, counted before anything is spent."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from pea.collect.layout import layouts_of
from pea.config import Config
from pea.corpus.corpus_names import DISTILLED
from pea.corpus.damaged_tars import DamagedTars
from pea.corpus.tars import counted_samples, expand_tars, guessed_samples
from pea.corpus.texts import text_parts
from pea.costs import caching
from pea.costs.attention import attention_costs
from pea.costs.gpus import gpus, price_source, utilisation
from pea.costs.memory import PRECISIONS, memory_needs
from pea.costs.work import Work, work_of
from pea.errors import ConfigError, CorpusError
from pea.file_names import CACHE_SUMMARY
from pea.plurals import count_of
from pea.storage import Location

_SAMPLES_PER_TAR = 10_000  # where the tars are not there yet
_HOUR_S = 3600
_LEAST_SECONDS = 600
"""Of a run that a rate is taken from: much of a shorter one goes into Ray's start and the models' loading."""


@dataclass(frozen=True)
class Asked:
    """What a plan is asked for, beside the configuration."""

    models: caching.Models | None = None
    """In the place of those in the checkpoint's folder."""
    samples: int | None = None
    """Of the parallel corpus; None: as many as its tars hold."""
    languages: int = 1
    """Adapters from this cache."""
    runs: int = 1
    """Trainings per language."""
    gpu: str = "h100"
    """Name in ``pea.costs.gpus``, whose published peak is counted with where no rate is known."""
    num_gpus: int = 1
    """That share the work: days are those hours over them."""
    price: float | None = None
    """US dollars for an hour of a GPU."""
    records_per_s: float | None = None
    """Teacher's rate per GPU, as measured."""
    tflops: float | None = None
    """Arithmetic rate that a GPU sustains."""


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
    samples_guessed: bool
    """Whether some tars say no number, so that it is from their sizes."""
    num_draws: int
    num_records: int
    total_bytes: float
    attention: dict[str, float] | None
    """Of the cached attention queries, where there are any: bytes per record, and TFLOP per record of training on
    them alone."""
    teacher_tflop_per_record: float
    """Caching: UNet, and the record's share of VAE and English encoders."""
    work: Work
    """In floating-point operations."""
    tflops: float
    """Of one GPU, sustained."""
    rate_source: str
    price: float | None
    """US dollars for an hour of a GPU."""
    price_source: str
    num_gpus: int
    records_per_s: float
    """Of the teacher, per GPU."""
    largest_tar_minutes: float
    """Of one GPU, lost at most with a worker or its node."""
    student_records_per_s: float | None
    """In the UNet phase, per GPU; None without one."""
    read_mb_per_s: float | None
    """That the UNet phase needs, per GPU."""
    memory: dict[str, float]
    """Kind of work -> most bytes that are held at a time, on the device that does it; see ``pea.costs.memory``."""

    def hours(self, flop: float) -> float:
        """GPU-hours of so much arithmetic."""
        return flop / (self.tflops * 1e12) / _HOUR_S

    def usd(self, flop: float) -> float | None:
        """Price of so much arithmetic, where a GPU's is known."""
        return None if self.price is None else self.price * self.hours(flop)


def make_plan(config: Config, asked: Asked) -> Plan:
    """All numbers.

    Raises:
        CheckpointError: the checkpoint has no configurations, and no models are given.
        ConfigError: the number of samples is unknown, or the bucket does not fit the models.
    """
    models = asked.models or caching.read_models(config.teacher.folder)
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
    num_samples, num_tars, largest_tar, is_guessed = corpus_size(config, asked.samples)
    tflops, source = sustained_tflops(config, asked, flops.caching(num_draws))
    price, priced = _price(asked)
    rate = tflops * 1e12 / flops.caching(num_draws)
    work = work_of(config, models, flops, name, num_samples, asked.languages * asked.runs)
    per_row = [phase.flop_per_row for phase in work.phases if phase.kind == "unet"]
    student_rate = tflops * 1e12 / per_row[0] if per_row else None
    per_record = size.record + size.sample / num_draws
    return Plan(
        bucket=name,
        blocks={b: {"fp16": size.exact_fp16_blocks[b], "stored": size.blocks[b]} for b in size.blocks},
        bytes_per_record=per_record,
        exact_fp16_bytes_per_record=sum(size.exact_fp16_blocks.values()),
        num_samples=num_samples,
        samples_guessed=is_guessed,
        num_draws=num_draws,
        num_records=num_samples * num_draws,
        total_bytes=size.total(num_samples, num_draws, num_tars),
        attention=attention_costs(models.unet, layout, num_draws),
        teacher_tflop_per_record=flops.caching(num_draws) / 1e12,
        work=work,
        tflops=tflops,
        rate_source=source,
        price=price,
        price_source=priced,
        num_gpus=asked.num_gpus,
        records_per_s=rate,
        largest_tar_minutes=largest_tar * num_draws / rate / 60,
        student_records_per_s=student_rate,
        read_mb_per_s=None if student_rate is None else student_rate * per_record / 1e6,
        memory=memory_needs(config, models, layout, largest_tar),
    )


def corpus_size(config: Config, given: int | None) -> tuple[int, int, int, bool]:
    """(samples, tars, samples of the largest tar, whether that is guessed): as given, or as the tars have or say it.

    Raises:
        ConfigError: the corpus is not there or empty, and nothing is given.
    """
    texts = config.corpora.parallel.text_source
    if given is not None:
        per_tar = _SAMPLES_PER_TAR if texts is None else texts.rows_per_part
        return given, max(1, given // per_tar), min(given, per_tar), False
    is_guessed, damaged = False, DamagedTars()
    try:
        counts = []
        for source in (config.corpora.source(name) for name in config.corpora.names if name in DISTILLED):
            if source.text_source is not None:
                counts += [part.num_usable for part, _ in text_parts(source.text_source)]
            else:
                for tar in expand_tars(source.tars):
                    with damaged.noted():
                        counted = counted_samples(tar)
                        is_guessed |= counted is None
                        counts.append(guessed_samples(tar) if counted is None else counted)
        damaged.refuse()
        if not sum(counts):
            raise CorpusError("the corpus has no samples", got=f"{count_of(len(counts), 'tar')} or parts of a table")
    except CorpusError as error:
        raise ConfigError(
            "the number of samples is unknown", got=error, remedy="Give it with --samples, or provide the corpus."
        ) from error
    return sum(counts), len(counts), max(counts), is_guessed


def sustained_tflops(config: Config, asked: Asked, flop_per_record: float) -> tuple[float, str]:
    """TFLOP/s of one GPU, and where the number comes from: given, measured by the last run, or published."""
    if asked.records_per_s:
        return asked.records_per_s * flop_per_record / 1e12, f"{asked.records_per_s:g} records/s of caching, as given"
    if asked.tflops:
        return asked.tflops, "as given"
    path = config.cache_dir("parallel") / CACHE_SUMMARY
    try:
        summary: dict[str, Any] = json.loads(Location.parse(path).read_text())
        rate, seconds = summary["records"] / summary["seconds"] / config.cache.run.num_actors, summary["seconds"]
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        rate, seconds = 0.0, 0.0
    if rate > 0 and seconds >= _LEAST_SECONDS:
        return rate * flop_per_record / 1e12, f"{rate:,.1f} records/s and actor, measured by the last run, {path}"
    gpu = gpus()[asked.gpu]
    short = f" (the last run took {seconds:,.0f} s, too few to measure by)" if rate > 0 else ""
    source = f"assumed, not measured{short}: {utilisation():.0%} of the {gpu.tflops:g} of {gpu.name}, {gpu.source}"
    if "float32" in (config.teacher.dtype, PRECISIONS[config.train.precision]):
        source += "; that is of float16 or bfloat16, and what this configuration does in float32 is slower"
    return gpu.sustained_tflops, source


def _price(asked: Asked) -> tuple[float | None, str]:
    if asked.price is not None:
        return asked.price, "as given"
    usual = gpus()[asked.gpu].usd_per_hour
    return usual, "unknown: give --price" if usual is None else f"assumed: {price_source()}"
