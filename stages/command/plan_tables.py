"""A plan for a person: its tables, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.table import Table

from data_tools.tables import human_bytes, human_seconds
from pea.costs.changes import Change
from pea.costs.gpus import gpus, price_date, utilisation
from pea.costs.plan import Plan
from pea.plurals import count_of
from stages.command.console import Console

LONGEST_TAR_MINUTES = 30
"""What is lost with a worker is one tar: larger ones are warned of."""
_GB = 1e9
_ROOM = 0.9
"""Share of a GPU's memory that is left for what is counted; kernels, allocator and driver have the rest."""
_LEAST = 0.01
"""Hours, days and dollars below it are not told apart."""


def show(plan: Plan, console: Console) -> None:
    """Sizes, and what everything takes."""
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
    console.print(_time_table(plan))
    for line in _lines(plan):
        console.print(f"  {line}", soft_wrap=True)


def _time_table(plan: Plan) -> Table:
    work, days = plan.work, "days" if plan.num_gpus == 1 else f"days on {plan.num_gpus}"
    table = Table("work", "records", "TFLOP a record", "GPU-hours", days, "US dollars", title="Time and money")
    rate = plan.teacher_tflop_per_record
    table.add_row("caching, once", f"{plan.num_records:,}", f"{rate:,.3g}", *_cost(plan, work.caching))
    for phase in work.phases:
        per_row = phase.flop_per_row / 1e12
        table.add_row(f"training, {phase.kind}", f"{phase.rows:,.0f}", f"{per_row:,.3g}", *_cost(plan, phase.flop))
        if phase.online_flop and phase.kind == "unet":
            online = phase.online_flop / phase.rows / 1e12
            table.add_row("the same, online", f"{phase.rows:,.0f}", f"{online:,.3g}", *_cost(plan, phase.online_flop))
    table.add_section()
    count = f"{work.trainings} training" + "s" * (work.trainings > 1)
    table.add_row(f"cache and {count}", "", "", *_cost(plan, work.cached_total))
    if work.online:
        table.add_row(f"{count} online", "", "", *_cost(plan, work.online_total))
    return table


def _cost(plan: Plan, flop: float) -> tuple[str, str, str]:
    hours, usd = plan.hours(flop), plan.usd(flop)
    return _number(hours), _number(hours / 24 / plan.num_gpus), "?" if usd is None else _number(usd)


def _number(value: float) -> str:
    if 0 < abs(value) < _LEAST:
        return f"under {_LEAST:g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def _lines(plan: Plan) -> Iterator[str]:
    if plan.samples_guessed:
        yield "samples: guessed from the tars' sizes, which say no number; give it with --samples"
    samples, draws = count_of(plan.num_samples, "sample"), count_of(plan.num_draws, "draw")
    counted = f"{samples} x {draws} = {count_of(plan.num_records, 'record')}"
    yield f"cache: {counted}, {human_bytes(plan.total_bytes)}"
    if plan.attention is not None:
        size, tflop = plan.attention["bytes_per_record"], plan.attention["tflop_per_record"]
        yield f"attention queries: {size / 1e3:,.1f} kB per record; training on them, {tflop:.3g} TFLOP per record"
    yield f"rate: {_rate(plan.tflops)} TFLOP/s and GPU ({plan.rate_source})"
    price = "?" if plan.price is None else f"{plan.price:g}"
    yield f"price: {price} US dollars for an hour of a GPU ({plan.price_source})"
    yield f"caching: {_rate(plan.records_per_s)} records/s per GPU"
    line = (
        f"a worker that is lost takes at most one tar along: {human_seconds(60 * plan.largest_tar_minutes)} of its GPU"
    )
    long = plan.largest_tar_minutes > LONGEST_TAR_MINUTES
    yield f"warning: {line}, more than {LONGEST_TAR_MINUTES} min; cut the corpus into smaller tars" if long else line
    if plan.student_records_per_s is not None:
        reads = 1e6 * (plan.read_mb_per_s or 0.0)
        yield f"trainer: {_rate(plan.student_records_per_s)} records/s per GPU, reading {human_bytes(reads)}/s"
    yield "memory at most: " + ", ".join(f"{name} {human_bytes(size)}" for name, size in plan.memory.items())


def show_gpus(plan: Plan, console: Console) -> None:
    """The same work on every kind of GPU of the table."""
    title = f"On other GPUs, at {utilisation():.0%} of the published peak; prices of {price_date()} (both assumed)"
    table = Table(
        "gpu", "TFLOP/s", "memory", "fits", "GPU-hours", "online", "USD/h", "US dollars", "online", title=title
    )
    work = plan.work
    for key, gpu in gpus().items():
        hours = [flop / gpu.sustained_tflops / 1e12 / 3600 for flop in (work.cached_total, work.online_total)]
        price = gpu.usd_per_hour
        money = ["?" if price is None else _number(price * each) for each in hours]
        shown = [_number(each) for each in hours]
        if not work.online:
            shown[1] = money[1] = ""
        table.add_row(
            key, f"{gpu.tflops:g}", f"{gpu.memory_gb:g} GB", fitting(plan, gpu.memory_gb), *shown,
            "?" if price is None else f"{price:g}", *money,
        )  # fmt: skip
    console.print(table)


def fitting(plan: Plan, memory_gb: float) -> str:
    """What of the work fits into a GPU of so much memory."""
    names = [name for name in ("caching", "training") if plan.memory[name] / _GB <= _ROOM * memory_gb]
    return "both" if len(names) == 2 else names[0] if names else "neither"


def show_changes(plan: Plan, changed: Sequence[Change], console: Console) -> None:
    """What each change would save; none of them is free in quality."""
    table = Table(
        "with", "GPU-hours saved", "US dollars saved", "bytes saved", "memory of training",
        title="What a change would save (what it costs in quality: docs/results)",
    )  # fmt: skip
    for each in changed:
        flop = plan.work.cached_total - each.plan.work.cached_total
        usd = plan.usd(flop)
        table.add_row(
            " ".join(each.settings),
            _number(plan.hours(flop)),
            "?" if usd is None else _number(usd),
            human_bytes(plan.total_bytes - each.plan.total_bytes),
            human_bytes(_training_memory(each.plan)),
        )
    console.print(table)


def _training_memory(plan: Plan) -> float:
    """Bytes that the largest phase of a training needs."""
    kinds = {phase.kind for phase in plan.work.phases}
    return max(plan.memory["training" if kind == "unet" else kind] for kind in kinds)


def verdict(plan: Plan, changed: Sequence[Change]) -> str:
    """Whether the cache pays against asking the teacher at every step, or what would make it pay."""
    work = plan.work
    if not work.online:
        return "no pass of the UNet is planned, so there is no online training to compare the cache with"
    count = f"{work.trainings} training{'s' * (work.trainings > 1)}"
    compared = f"{count} cost{'s' * (work.trainings == 1)} "
    compared += f"{_number(plan.hours(work.cached_total))} GPU-hours with the cache, "
    compared += f"{_number(plan.hours(work.online_total))} online"
    further = f"each further language or run costs {_number(plan.hours(work.training))} instead of "
    further += _number(plan.hours(work.online))
    even, others = work.break_even_trainings, _paying(changed)
    if even is None:
        return f"the cache never pays: {compared}; {', or with '.join([_why_never(plan), *others])}"
    if work.saving >= 0:
        when = "with the first training" if even <= 1 else f"from training {even} on"
        return f"the cache pays {when}: {compared}, {work.saving:.0%} less; {further}"
    ways = f"from {even} trainings on (languages x runs)" + "".join(f", or with {each}" for each in others)
    return f"for so little training the cache does not pay yet: {compared}; it pays {ways}; {further}"


def _paying(changed: Sequence[Change]) -> list[str]:
    """The changes with which the cache would pay, as settings."""
    paying = (each for each in changed if each.plan.work.online and each.plan.work.saving >= 0)
    return [" ".join(each.settings) for each in paying]


def _why_never(plan: Plan) -> str:
    """Why a training from the cache costs no less than one online, and what would change that."""
    [unet] = (phase for phase in plan.work.phases if phase.kind == "unet")
    saved = unet.online_flop - unet.flop
    if saved <= 0:
        return "no row of its UNet phase asks the teacher for anything; it may pay with a lower train.culture_fraction"
    before = sum(phase.flop - phase.online_flop for phase in plan.work.phases if phase.kind != "unet")
    steps = math.floor(before / (saved / unet.steps)) + 1
    why = f"its attention phase, which there is with a cache alone, costs more than its {count_of(unet.steps, 'step')}"
    return f"{why} of the UNet save; for enough languages and runs it pays with {steps:,} or more of them"
