"""Every sketch of every block: its bytes, and what it does to the adapter's gradient, as figures, table and picture."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from pea.cache.schema import NOISE_PRED
from pea.config import Config, CountSketch, ExactSketch, FoldSketch, PositionsSketch, QuantizedSketch
from pea.errors import ConfigError
from pea.file_names import LORA_FILE, MODEL_CONFIG
from pea.models.adapter import PEA
from pea.plurals import count_of
from pea.sketch.rate_distortion import AnySketchConfig, GradientErrors, Point, recommend
from pea.storage.durable import write_bytes, write_text
from pea.training.signals import LiveTeacher, english_conditioning
from pea.training.student import condition
from stages.command.console import Console
from stages.command.progress import StageProgress
from stages.training.setup import distilling_alone, prepare

RATIOS = (16, 64, 256, 1024)
SETTINGS: tuple[AnySketchConfig, ...] = (
    ExactSketch(kind="exact", dtype="float16"),
    *(QuantizedSketch(kind="quantized", values=values) for values in ("int8", "fp8_e4m3", "int4")),
    *(PositionsSketch(kind="positions", fraction=1 / n, values=v) for n in (4, 16, 64) for v in ("float16", "int8")),
    *(CountSketch(kind="count", ratio=n, values=v) for n in RATIOS for v in ("float16", "int8")),
    *(FoldSketch(kind="fold", ratio=n, values=v) for n in RATIOS for v in ("float16", "int8", "int4")),
)


class Measured(NamedTuple):
    """What `measure` found."""

    points: list[Point]
    weights: dict[str, float]
    """Block -> its factor in the loss, relative to that of the features."""
    facts: dict[str, Any]
    """What it was measured on."""


def measure(config: Config, console: Console, num_records: int) -> Measured:
    """Every sketch of every block, on so many records.

    Raises:
        ConfigError: a UNet was trained beside the adapter.
    """
    if (config.adapter_dir / LORA_FILE).exists():
        raise ConfigError(
            "the UNet was trained as well, and sketches are measured with the teacher's own",
            where=config.adapter_dir,
            expected="an adapter of train.method=adapter",
            remedy="Give another run_dir (and cache_root) to measure with a new adapter.",
        )
    train = distilling_alone(config.train, targets="live", feature_weight=1.0, block_weights={})
    device = torch.device("cuda" if torch.cuda.is_available() and train.device == "auto" else "cpu")
    setup = prepare(config.model_copy(update={"train": train}), device)
    trained = (config.adapter_dir / MODEL_CONFIG).exists()
    adapter = (PEA.load(config.adapter_dir).requires_grad_() if trained else setup.adapter).to(device)
    assert isinstance(setup.source, LiveTeacher)
    errors, parameters = GradientErrors(SETTINGS, config.cache.seed), list(adapter.parameters())
    done = 0
    with StageProgress(console, "gradients", "records") as progress:
        while done < num_records:
            batch = setup.data.batch(done // train.batch_size).to(device)
            states, pooled_from = (
                None if captions is None else _on(device, setup.native_states(captions))
                for captions in (batch.native_captions, batch.native_pooled_captions)
            )
            assert states is not None
            noisy = setup.teacher.add_noise(batch.latents, batch.noise, batch.timesteps)
            with torch.no_grad():
                conditioning = english_conditioning(setup.source.encode, batch, device)
                answer = setup.teacher.forward(noisy, batch.timesteps, conditioning, batch.time_ids)
            text = condition(adapter, *states, pooled_from)
            student = setup.teacher.forward(noisy, batch.timesteps, text, batch.time_ids)
            maps = {**student.features, NOISE_PRED: student.noise_pred}
            errors.add(maps, {**answer.features, NOISE_PRED: answer.noise_pred}, batch.record_ids, parameters)
            done += len(batch)
            progress.update(done, num_records, done)
    weights = {
        block: scale * config.train.block_weights.get(block, 1.0) for block, scale in setup.block_weights.items()
    }
    weights[NOISE_PRED] = config.train.noise_pred_weight / max(config.train.feature_weight, 1e-12)
    return Measured(errors.points(), weights, {"records": done, "adapter": "trained" if trained else "new"})


def _on(device: torch.device, states: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor | None]:
    hidden, mask = states
    assert hidden is not None
    return hidden.to(device), None if mask is None else mask.to(device)


def describe(sketch: AnySketchConfig) -> str:
    """`count 64x int8`."""
    if isinstance(sketch, CountSketch | FoldSketch):
        return f"{sketch.kind} {sketch.ratio:g}x {sketch.values}"
    if isinstance(sketch, PositionsSketch):
        return f"positions 1/{1 / sketch.fraction:g} {sketch.values}"
    return f"{sketch.kind} {getattr(sketch, 'values', getattr(sketch, 'dtype', ''))}"


def markdown(points: Sequence[Point]) -> str:
    """All points as a table."""
    lines = [
        "| block | sketch | bytes a record | times smaller than fp16 | cosine | relative error |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.block} | {describe(p.sketch)} | {p.bytes_per_record} | {p.ratio:.1f} | {p.cosine:.4f} | "
        f"{p.relative_error:.4f} |"
        for p in points
    ]
    return "\n".join(lines) + "\n"


def picture(points: Sequence[Point]) -> bytes:
    """Relative error of the gradient over the factor of compression, a panel per kind, a line per block: PNG."""
    names = list(dict.fromkeys(_family(p.sketch) for p in points if p.sketch.kind not in ("exact", "quantized")))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * lines), dpi=144, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        for block in dict.fromkeys(p.block for p in points):
            line = [p for p in points if p.block == block and _family(p.sketch) == name]
            line.sort(key=lambda p: p.ratio)
            axes.plot([p.ratio for p in line], [p.relative_error for p in line], marker="o", markersize=3, label=block)
        axes.set(title=name, xscale="log", yscale="log")
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("relative error of the adapter's gradient", fontsize=9)
    figure.supxlabel("times smaller than fp16", fontsize=9)
    panels[0].legend(frameon=False, fontsize=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _family(sketch: AnySketchConfig) -> str:
    """Sketches that differ in their size alone."""
    return f"{sketch.kind} {getattr(sketch, 'values', '')}"


def measure_and_write(config: Config, console: Console, num_records: int, budget: float | None) -> None:
    """Measure, write the files into the run folder, and recommend sketches where there is a budget of bytes.

    Raises:
        ConfigError: a UNet was trained beside the adapter.
    """
    points, weights, facts = measure(config, console, num_records)
    folder = config.run_dir / "rate_distortion"
    chosen = None if budget is None else recommend(points, budget, weights)
    _write(folder, points, facts | {"budget_bytes": budget}, chosen)
    _show(console, points)
    console.print(
        f"{folder}: rd.json, rd.md, rd.png ({count_of(facts['records'], 'record')}, {facts['adapter']} adapter)"
    )
    if budget is not None:
        _show_choice(console, chosen, budget)


def _write(folder: Path, points: list[Point], facts: dict[str, Any], chosen: dict[str, Point] | None) -> None:
    rows = [asdict(p) | {"sketch": p.sketch.model_dump(mode="json"), "ratio": p.ratio} for p in points]
    choice = {block: p.sketch.model_dump(mode="json") for block, p in (chosen or {}).items()}
    write_text(folder / "rd.json", json.dumps(facts | {"points": rows, "recommended": choice}, indent=1) + "\n")
    write_text(folder / "rd.md", markdown(points))
    write_bytes(folder / "rd.png", picture(points))


def _show(console: Console, points: Sequence[Point]) -> None:
    """The mean over blocks of each setting."""
    table = Table(
        "sketch", "smaller than fp16", "cosine", "relative error", title="Adapter's gradient, mean over blocks"
    )
    for name in dict.fromkeys(describe(p.sketch) for p in points):
        each = [p for p in points if describe(p.sketch) == name]
        ratio = sum(p.fp16_bytes for p in each) / sum(p.bytes_per_record for p in each)
        cosine = sum(p.cosine for p in each) / len(each)
        table.add_row(name, f"{ratio:.1f}x", f"{cosine:.4f}", f"{sum(p.relative_error for p in each) / len(each):.4f}")
    console.print(table)


def _show_choice(console: Console, chosen: dict[str, Point] | None, budget: float) -> None:
    if chosen is None:
        console.print(f"nothing fits {budget:g} bytes a record")
        return
    spent = sum(p.bytes_per_record for p in chosen.values())
    console.print(f"recommended for {budget:g} bytes a record ({spent} used), cache.block_sketches:")
    for block, point in chosen.items():
        setting = json.dumps(point.sketch.model_dump(mode="json"))
        name = "and cache.noise_pred_sketch" if block == NOISE_PRED else f"  {block}"
        console.print(f"{name}: {setting}")
