"""`report.html`: one self-contained page from what the stages left in the run folder.

Every sentence is computed from the run, or absent: the page says the same kind of thing of anybody's run.
"""

from __future__ import annotations

from pathlib import Path

from data_tools.pages import render_page
from data_tools.report.answer import answers, headline
from data_tools.report.cached_sample import cached_sample
from data_tools.report.examples import example_groups
from data_tools.report.provenance import how_to_repeat, read_json, sizes_and_times
from data_tools.report.scores import score_plots
from data_tools.report.training import loss_charts, training_note
from data_tools.tables import human_seconds
from pea.config import Config
from pea.copies import as_stored
from pea.errors import EvaluationError
from pea.evaluation.prompts import read_prompts
from pea.evaluation.record import ScoreRecord
from pea.file_names import METRICS, REPORT, TRAIN_LOG, TRAIN_SUMMARY
from pea.pipeline.card import pipeline_call
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
    details = record.details
    cards = answers(details, list(sets))
    languages = config.student.languages
    groups = example_groups(config, sets, record.drawings)
    num_images = sum(group["num_images"] for group in groups)
    page = render_page(
        "report/page_report.html",
        title=f"{' and '.join(languages)} prompts for {config.teacher.name}",
        lead=headline(cards, languages, config.teacher.name, num_images),
        language=languages[0],
        cards=cards,
        scores=score_plots(details, list(sets)),
        groups=groups,
        training_note=training_note(summary, human_seconds(summary["seconds"]) if summary else ""),
        loss_charts=loss_charts(config, TrainLog(config.training_dir / TRAIN_LOG).rows(), summary),
        snippet=_snippet(config),
        cached=cached_sample(config),
        facts=sizes_and_times(config, record.content, summary),
        repeat=how_to_repeat(config, details),
    )
    path = config.run_dir / REPORT
    write_text(path, page)
    return path


def _snippet(config: Config) -> str:
    """The lines that use this adapter, with this run's folders."""
    family = (
        "StableDiffusionXLPipeline"
        if (config.teacher.folder / "text_encoder_2").is_dir()
        else "StableDiffusionPipeline"
    )
    places = [f'"{place}"' for place in (as_stored(str(config.adapter_dir)), *config.student.places)]
    return (
        f"from diffusers import {family}\n"
        "from pea.pipeline import PEAPrompt\n\n"
        f"pipe = {pipeline_call(family, str(config.teacher.checkpoint))}\n"
        f"pea = PEAPrompt.from_pretrained({', '.join(places)})\n"
        'image = pipe(**pea("...")).images[0]\n'
    )
