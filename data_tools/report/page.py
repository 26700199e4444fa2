"""`report.html`: one self-contained page from what the stages left in the run folder.

Every sentence is computed from the run, or absent: the page says the same kind of thing of anybody's run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.pages import render_page
from data_tools.report.answer import answers, headline, listed
from data_tools.report.cached_sample import cached_sample
from data_tools.report.examples import example_groups, num_images, scored_ids
from data_tools.report.provenance import how_to_repeat, read_json, sizes_and_times
from data_tools.report.scores import score_plots
from data_tools.report.training import loss_charts, training_note
from data_tools.tables import human_seconds
from pea.config import Config
from pea.copies import as_stored
from pea.errors import EvaluationError
from pea.evaluation.prompts import Prompt, read_prompts
from pea.evaluation.record import ScoreRecord, adapter_digest, is_of, prompts_digest
from pea.file_names import LORA_FILE, METRICS, MODEL_CONFIG, REPORT, TRAIN_LOG, TRAIN_SUMMARY
from pea.pipeline.card import lora_call, pipeline_call
from pea.storage.durable import write_text
from pea.training.train_log import TrainLog


def write_report(config: Config) -> Path:
    """Write the page; returns its path.

    Raises:
        EvaluationError: the adapter has not been evaluated yet.
    """
    if not (config.run_dir / METRICS).exists():
        raise EvaluationError("nothing to report yet", where=config.run_dir / METRICS, remedy="Run `pea eval` first.")
    record = ScoreRecord(config.run_dir / METRICS)
    summary = read_json(config.training_dir / TRAIN_SUMMARY)
    sets = {name: read_prompts(path, config.evaluate.max_prompts) for name, path in config.evaluate.prompts.items()}
    details, drawings, left_out = _of_present(config, record, sets)
    languages = config.student.languages
    ids = {(row, name): scored_ids(config, row, name) for row, name in map(_split, drawings)}
    cards = answers(details, list(sets), languages, {place: each for place, each in ids.items() if each})
    groups = example_groups(config, sets, drawings)
    charts = loss_charts(config, TrainLog(config.training_dir / TRAIN_LOG).rows(), summary)
    page = render_page(
        "report/page_report.html",
        title=f"{listed(languages)} prompts for {config.teacher.name}",
        lead=headline(
            cards,
            languages,
            config.teacher.name,
            num_images=sum(num_images(config, name, prompts, drawings) for name, prompts in sets.items()),
            scored=bool(details),
        ),
        left_out=left_out,
        language=languages[0],
        cards=cards,
        scores=score_plots(details, list(sets)),
        groups=groups,
        training_note=training_note(summary, human_seconds(summary["seconds"]) if summary else ""),
        loss_charts=charts,
        snippet=_snippet(config),
        cached=cached_sample(config),
        facts=sizes_and_times(config, record.content, summary, scored=bool(details)),
        repeat=how_to_repeat(config, details, drawings, summary),
    )
    path = config.run_dir / REPORT
    write_text(path, page)
    return path


def _of_present(
    config: Config, record: ScoreRecord, sets: Mapping[str, Sequence[Prompt]]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Scores and drawings of the adapter and the prompts that are there now, and a sentence on what is left out."""
    adapter, prompts = adapter_digest(config.adapter_dir), {name: prompts_digest(each) for name, each in sets.items()}
    details = {name: each for name, each in record.details.items() if is_of(each.get("settings", {}), adapter, prompts)}
    drawings = {name: each for name, each in record.drawings.items() if is_of(each, adapter, prompts)}
    gone = len(record.details) - len(details) + len(record.drawings) - len(drawings)
    said = "Scores and pictures of another adapter, or of other prompts, are left out: pea eval makes them anew."
    return details, drawings, said if gone else ""


def _split(name: str) -> tuple[str, str]:
    """Row and prompt set of a drawing's name."""
    row, _, prompt_set = name.partition("/")
    return row, prompt_set


def _snippet(config: Config) -> str:
    """The lines that use this adapter, with this run's folders; empty where there is no adapter."""
    if not (config.adapter_dir / MODEL_CONFIG).is_file():
        return ""
    family = (
        "StableDiffusionXLPipeline"
        if (config.teacher.folder / "text_encoder_2").is_dir()
        else "StableDiffusionPipeline"
    )
    adapter = as_stored(str(config.adapter_dir))
    places = [f'"{place}"' for place in (adapter, *config.student.places)]
    return (
        f"from diffusers import {family}\n"
        "from pea.pipeline import PEAPrompt\n\n"
        f"pipe = {pipeline_call(family, config.teacher.place)}\n"
        f"pea = PEAPrompt.from_pretrained({', '.join(places)})\n"
        f"{lora_call(adapter) if (config.adapter_dir / LORA_FILE).is_file() else ''}"
        "pea.attach(pipe)\n"
        'image = pipe("...").images[0]\n'
    )
