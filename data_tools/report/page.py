"""`report.html`: one self-contained page from what the stages left in the run folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_tools.pages import render_page
from data_tools.report.pictures import data_url, decoded_sample, heat_map, loss_chart, sketch_map
from pea.cache import Cache
from pea.cache.manifest import FILE_NAME as MANIFEST
from pea.config import Config
from pea.errors import EvaluationError
from pea.evaluation.prompts import Prompt, read_prompts
from pea.file_names import CACHE_SUMMARY, METRICS, REPORT, TRAIN_LOG, TRAIN_SUMMARY
from pea.foreign_text import file_name
from pea.storage import Location
from pea.storage.durable import write_text
from pea.training.train_log import TrainLog

PROMPTS_SHOWN = 8
DRAWS_SHOWN = 4
ROWS = {
    "teacher": "teacher, English",
    "translation": "teacher, word-for-word English",
    "no_adapter": "native encoder, untrained adapter",
    "adapter": "native encoder, trained adapter",
}
LEAD = (
    "The frozen English teacher was asked once, its answers were cached, and the adapter was trained from the cache "
    "and from images of native culture. Everything on this page comes from the run folder."
)
COLUMNS = ("teacher", "translation", "adapter")
"""Rows whose images are shown side by side, where there are any."""
MEASURES = {
    "": ("accuracy", "Accuracy of an independent judge, mean over the attributes that a prompt names."),
    ".clip": ("CLIP score", "CLIP score: the cosine between image and prompt."),
}
"""End of a metric's name -> what it is called, and what it is."""


def write_report(config: Config) -> Path:
    """Write the page; returns its path.

    Raises:
        EvaluationError: the adapter has not been evaluated yet.
    """
    metrics_path = config.run_dir / METRICS
    if not metrics_path.exists():
        raise EvaluationError("nothing to report yet", where=metrics_path, remedy="Run `pea eval` first.")
    metrics = json.loads(metrics_path.read_text("utf-8"))
    summary = _read_json(config.adapter_dir / TRAIN_SUMMARY)
    sets = {name: read_prompts(path) for name, path in config.evaluate.prompts.items()}
    scores = _scores(metrics.get("details", {}), list(sets))
    groups = [_group(config, name, prompts) for name, prompts in sets.items()]
    page = render_page(
        "report/page_report.html",
        title=f"A {config.student.languages[0]} adapter for {config.teacher.name}",
        lead=LEAD,
        language=config.student.languages[0],
        cards=_cards(metrics),
        scores=scores,
        score_notes=[note for name, note in MEASURES.values() if any(score["measure"] == name for score in scores)],
        groups=[group for group in groups if group["rows"]],
        training_note=_training_note(summary),
        loss_chart=loss_chart(TrainLog(config.adapter_dir / TRAIN_LOG).rows()),
        cached=_cached(config),
        facts=_facts(config, metrics, summary),
    )
    path = config.run_dir / REPORT
    write_text(path, page)
    return path


def _read_json(path: Path | Location) -> dict[str, Any]:
    place = Location.parse(path)
    content: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    return content


def _cards(metrics: dict[str, Any]) -> list[dict[str, str]]:
    wanted = [
        ("adapter.general", "adapter, general prompts", "{:.1%}"),
        ("teacher.general", "teacher with English (upper bound)", "{:.1%}"),
        ("adapter.culture", "adapter, culture prompts", "{:.1%}"),
        ("translation.culture", "culture prompts by translation", "{:.1%}"),
        ("adapter.general.clip", "adapter, general prompts, CLIP score", "{:.3f}"),
        ("adapter.culture.clip", "adapter, culture prompts, CLIP score", "{:.3f}"),
        ("cache.bytes_per_record", "bytes cached per record", "{:,.0f}"),
        ("seconds.train", "seconds of training", "{:,.0f}"),
    ]
    return [{"label": label, "value": form.format(metrics[key])} for key, label, form in wanted if key in metrics]


def _scores(details: dict[str, Any], sets: Sequence[str]) -> list[dict[str, str]]:
    scores = []
    for prompt_set, (end, (measure, _)), row in itertools.product(sets, MEASURES.items(), ROWS):
        names = [f"{row}.{prompt_set}{end}", f"{row}.{prompt_set}_described{end}"]
        detail = next((details[name] for name in names if name in details), None)
        if detail is None:
            continue
        mean, attributes = detail["mean"], detail.get("attributes", {})
        scores.append(
            {
                "prompts": prompt_set,
                "row": row,
                "label": ROWS[row],
                "measure": measure,
                "percent": f"{max(0.0, 100 * mean['accuracy']):.1f}",
                "value": f"{mean['accuracy']:.3f}",
                "interval": f"{mean['low']:.3f} to {mean['high']:.3f}, n = {mean['n']}",
                "attributes": ", ".join(f"{n} {a['accuracy']:.2f}" for n, a in attributes.items()),
            }
        )
    return scores


def _group(config: Config, name: str, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The side-by-side table of one prompt set: the first prompts, and for culture one of each concept first.

    Only prompts and rows that were drawn are in it; null: this row was not drawn for this prompt.
    """
    language = config.student.languages[0]
    folder = config.run_dir / "evaluate"
    drawn = {row: _pictures(folder / row / name, prompts) for row in COLUMNS}
    columns = [row for row in COLUMNS if drawn[row]]
    rows = [
        {
            "prompt": prompt.captions.get(language, ""),
            "translation": prompt.captions.get(f"translation_{language}", ""),
            "english": prompt.captions.get(config.corpora.parallel.source_language, ""),
            "images": [
                data_url(drawn[row][prompt.id].read_bytes()) if prompt.id in drawn[row] else None for row in columns
            ],
        }
        for prompt in _varied([prompt for prompt in prompts if any(prompt.id in drawn[row] for row in columns)])
    ]
    notes = {
        "general": "Combinations of attributes that no training image has.",
        "culture": (
            "Concepts without a faithful English name. The teacher is given an English description of them, "
            "translation the dictionary's words, the adapter the native name."
        ),
    }
    return {
        "title": f"Prompts: {name}",
        "note": notes.get(name, ""),
        "columns": [ROWS[row] for row in columns],
        "rows": rows,
    }


def _pictures(folder: Path, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """Id of each prompt that was drawn -> its picture."""
    paths = {prompt.id: folder / f"{file_name(prompt.id)}.png" for prompt in prompts}
    return {name: path for name, path in paths.items() if path.is_file()}


def _varied(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each subject (shape or concept), in order, then others, up to `PROMPTS_SHOWN`."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(next(iter(prompt.attributes.values()), prompt.id), prompt)
    chosen = list(first.values())
    return (chosen + [prompt for prompt in prompts if prompt not in chosen])[:PROMPTS_SHOWN]


def _training_note(summary: dict[str, Any]) -> str:
    if not summary:
        return ""
    kinds = {"text": "on texts alone", "attention": "on attention queries", "unet": "with the UNet"}
    phases = ", ".join(f"{each['steps']:,} {kinds[each['kind']]}" for each in summary["phases"])
    return (
        f"{summary['steps']:,} steps ({phases}) in {summary['seconds']:,.0f} s "
        f"({summary['samples_per_s']:,.0f} samples/s), {summary['trained_parameters']:,} trained parameters, "
        f"{summary['records']:,} cached records and {summary['culture_samples']:,} culture images."
    )


def _cached(config: Config) -> dict[str, Any] | None:
    """Pictures of the first sample of the cache: its decoded latents, and what is kept of each draw.

    None: there is no cache, as where the adapter was converted, or nothing in it.
    """
    if not (Location.parse(config.cache_dir("parallel")) / MANIFEST).exists():
        return None
    cache = Cache.open(config.cache_dir("parallel"), partial=True)
    bucket = next((b for shard in cache.shards for b in shard.buckets.values() if b.num_samples), None)
    if bucket is None:
        return None
    sample = bucket.read(["latents_mean"], 0, 1)["latents_mean"][0]
    count = min(DRAWS_SHOWN, bucket.draws_per_sample)
    answer = "noise_pred" if "noise_pred" in bucket.arrays else "noise_pred/values"
    features = [n for n in bucket.arrays if n.startswith("features/") and len(bucket.arrays[n].shape) > 0]
    features = [name for name in features if name.rsplit("/", 1)[-1] != "squared_norm"]
    rows = bucket.read(["timestep", answer, *features], 0, count)
    records = [[{"image": decoded_sample(config, sample), "width": 112, "label": "the VAE's latents, decoded"}]]
    for draw in range(count):
        shown = rows[answer][draw]
        picture = heat_map(shown[0]) if answer == "noise_pred" else sketch_map(shown)
        figures = [{"image": picture, "width": 96, "label": f"t = {rows['timestep'][draw]}"}]
        for name in features:
            block = name.split("/")[1]
            figures.append({"image": sketch_map(rows[name][draw]), "width": 96, "label": block})
        records.append(figures)
    shown_as = "its first channel" if answer == "noise_pred" else "its sketch"
    note = (
        f"Caption: “{bucket.captions(config.student.languages[0])[0]}”. One row per draw: the noise prediction at its "
        f"timestep ({shown_as}), then the sketch of each block's output ({_sketch_name(config)})."
    )
    return {"note": note, "records": records}


def _sketch_name(config: Config) -> str:
    settings = config.cache.sketch.model_dump()
    return " ".join(str(value) for value in settings.values())


def _facts(config: Config, metrics: dict[str, Any], summary: dict[str, Any]) -> list[dict[str, str]]:
    facts = []
    for corpus in ("parallel", "culture"):
        run_summary = _read_json(config.cache_dir(corpus) / CACHE_SUMMARY)
        if run_summary:
            facts.append(
                {
                    "name": f"cache, {corpus}",
                    "value": f"{run_summary['bytes'] / 1e6:,.1f} MB",
                    "note": f"{run_summary['samples']:,} samples, {run_summary['records']:,} records, "
                    f"filled in {run_summary['seconds']:,.0f} s",
                }
            )
    if "cache.bytes_per_record" in metrics:
        value = f"{metrics['cache.bytes_per_record']:,.0f}"
        facts.append({"name": "bytes per record", "value": value, "note": "everything on disk, compressed"})
    if summary:
        facts.append(
            {"name": "training", "value": f"{summary['seconds']:,.0f} s", "note": f"{summary['steps']:,} steps"}
        )
    if "seconds.evaluate" in metrics:
        facts.append({"name": "evaluation", "value": f"{metrics['seconds.evaluate']:,.0f} s", "note": "all rows"})
    return facts
