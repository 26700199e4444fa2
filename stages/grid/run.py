"""Draw and score a grid: variants of adapters, checkpoints, samplers and steps on every prompt set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from data_tools.report.grid_page import GridCell, grid_page
from pea.config import Config
from pea.evaluation.prompts import Prompt, read_prompts
from pea.storage.durable import write_text
from stages.command.console import Console
from stages.command.device import pick_device
from stages.grid.images import Drawing, draw_missing, drawings_of
from stages.grid.measuring import load_measures, measure_all
from stages.grid.models import look_at_models
from stages.grid.table import comparison_cells, comparisons, facts, markdown, score_cells, summarize
from stages.grid.variants import pairs_of, variants_of

SCORES, TABLE, PAGE = "scores.parquet", "table", "grid.html"


def run_grid(config: Config, console: Console) -> dict[str, Any]:
    """Draw what is missing, score it, and write `scores.parquet`, `table.md`, `table.json` and `grid.html`.

    Every model, schedule and prompt file is looked at before the first image is drawn.

    Raises:
        ConfigError: the grid names something that is not there, or a scheduler cannot take so many steps.
        CheckpointError: a model or scorer is missing, incomplete, or does not fit the others.
        EvaluationError: a prompt file is unreadable, or a variant has nothing to draw.
    """
    evaluate, folder = config.evaluate, config.run_dir / "evaluate" / "grid"
    device = pick_device(evaluate.device, "evaluate.device")
    sets = {name: read_prompts(path, evaluate.max_prompts) for name, path in evaluate.prompts.items()}
    variants = variants_of(config)
    if "no_adapter" in evaluate.rows and evaluate.rows != type(evaluate).model_fields["rows"].default:
        console.print("row no_adapter: left out, a grid has no untrained adapters")
    models = look_at_models(config, variants, device)
    measures = load_measures(config, device)
    drawings = drawings_of(config, console, variants, sets, models)
    drawn = draw_missing(config, console, drawings, models)
    kept = sum(len(drawing.images) for drawing in drawings) - drawn
    console.print(f"{drawn:,} images drawn, {kept:,} were there")
    lines = measure_all(folder / SCORES, console, drawings, measures)
    scores = summarize(lines, drawings)
    present = {drawing.variant.name for drawing in drawings}
    paired = comparisons(lines, [pair for pair in pairs_of(config, variants) if present.issuperset(pair)])
    result = {"scores": scores, "comparisons": paired}
    write_text(folder / f"{TABLE}.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / f"{TABLE}.md", markdown(scores, paired))
    write_text(folder / PAGE, _page(sets, drawings, scores, paired))
    _show(console, scores, paired)
    console.print(f"{folder / PAGE}")
    return result


def _page(
    sets: dict[str, list[Prompt]],
    drawings: Sequence[Drawing],
    scores: Sequence[dict[str, Any]],
    paired: Sequence[dict[str, Any]],
) -> str:
    pictures = {}
    for name, prompts in sets.items():
        own = [drawing for drawing in drawings if drawing.prompt_set == name]
        drawn = {(d.variant.name, image.prompt.id): image for d in own for image in d.images}
        names = [drawing.variant.name for drawing in own]
        rows = [
            [
                None
                if (image := drawn.get((variant, prompt.id))) is None
                else GridCell(variant, image.path, image.caption, image.language)
                for variant in names
            ]
            for prompt in prompts
        ]
        pictures[name] = (names, [row for row in rows if any(row)])
    tables = {name: score_cells(scores, name) for name in sets if any(each["prompt_set"] == name for each in scores)}
    return grid_page(
        title=f"{len({drawing.variant.name for drawing in drawings})} variants, side by side",
        tables=tables,
        pictures=pictures,
        paired=comparison_cells(paired),
        facts=facts(scores),
    )


def _show(console: Console, scores: Sequence[dict[str, Any]], paired: Sequence[dict[str, Any]]) -> None:
    if not scores:
        console.print("neither a judge nor a CLIP nor another scorer is given: images only")
    for prompt_set in dict.fromkeys(entry["prompt_set"] for entry in scores):
        _print_table(console, score_cells(scores, prompt_set), f"{prompt_set} prompts, mean [95 % interval]")
    if paired:
        _print_table(console, comparison_cells(paired), "prompt by prompt")


def _print_table(console: Console, cells: list[list[str]], title: str) -> None:
    table = Table(*cells[0], title=title)
    for row in cells[1:]:
        table.add_row(*row)
    console.print(table)
