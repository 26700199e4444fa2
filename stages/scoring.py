"""What scores the images of an evaluation: a judge that reads attributes, a CLIP of the prompts' language, scorers."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from rich.table import Table

from pea.config import Config
from pea.evaluation.drawing import Images
from pea.evaluation.judge import load_judge
from pea.evaluation.metrics import Accuracy, average, score
from pea.evaluation.prompts import Prompt
from pea.evaluation.record import PROMPT_SCORES, Settings
from pea.evaluation.scorers.choice import load_scorers
from pea.evaluation.scorers.clip_score import ClipScorer
from pea.evaluation.scorers.scorer import Scorer
from pea.storage.durable import write_text
from stages.command.console import Console
from stages.score_settings import JUDGE, ScoreSettings


class Scoring:
    """Collects scores by metric name: ``row.set`` is the judge's accuracy, ``row.set.clip`` a scorer's mean."""

    def __init__(self, config: Config, device: torch.device, settings: ScoreSettings) -> None:
        evaluate = config.evaluate
        self.settings = settings
        self.folder = config.run_dir / "evaluate"
        self.judge = load_judge(evaluate.judge) if evaluate.judge else None
        self.scorers: list[Scorer] = [ClipScorer.from_pretrained(evaluate.clip, device)] if evaluate.clip else []
        self.scorers += load_scorers(evaluate.scorers, device)
        settings.note_scorers(scorer for scorer in self.scorers if scorer.name != ClipScorer.name)
        self.english = config.corpora.parallel.source_language
        self.means: dict[str, Accuracy] = {}
        self.details: dict[str, dict[str, object]] = {}

    def add(self, row: str, prompt_set: str, language: str, prompts: list[Prompt], images: Images) -> None:
        """Score one row's images of one prompt set; `language`: of the prompts that the CLIP compares them with."""
        name = metric_name(row, prompt_set)
        each: list[dict[str, Any]] = [{"id": prompt.id} for prompt in prompts]
        if self.judge is not None:
            judged = score([prompt.attributes for prompt in prompts], self.judge.read(images))
            self._keep(name, judged.mean, judged.as_dict(), self.settings.of_score(row, prompt_set, JUDGE))
            for line, share in zip(each, judged.prompts, strict=True):
                line["accuracy"] = share
        for scorer in self.scorers:
            texts = texts_for(scorer, prompts, language, self.english)
            read = [number for number, text in enumerate(texts) if text is not None]
            if not read:
                continue
            values = scorer.score(images[read], [str(texts[number]) for number in read]).tolist()
            mean = average(values, [prompts[number].group for number in read])
            settings = self.settings.of_score(row, prompt_set, scorer.name)
            self._keep(f"{name}.{scorer.name}", mean, {"mean": mean.as_dict()}, settings)
            for number, value in zip(read, values, strict=True):
                each[number][scorer.name] = value
        if self.judge is not None or self.scorers:
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in each)
            write_text(self.folder / row / prompt_set / PROMPT_SCORES, text)

    def _keep(self, name: str, mean: Accuracy, detail: dict[str, object], settings: Settings) -> None:
        self.means[name], self.details[name] = mean, detail | {"settings": settings}

    def metrics(self) -> dict[str, Any]:
        """The means by metric name, and all that is known of them under ``details``."""
        return {name: round(mean.accuracy, 4) for name, mean in self.means.items()} | {"details": self.details}

    def show(self, console: Console) -> None:
        """The table of the scores, where there are any."""
        if not self.means:
            console.print("neither a judge nor a CLIP nor another scorer is given: images only")
            return
        titles = ["judge's accuracy, mean over attributes"] if self.judge is not None else []
        titles += ["means of the scorers"] if self.scorers else []
        table = Table("row", "score", "95 % interval", "n", title="; ".join(titles).capitalize())
        for name, mean in self.means.items():
            interval = f"{mean.low:.3f} to {mean.high:.3f}" if math.isfinite(mean.low) else "unknown"
            table.add_row(name, f"{mean.accuracy:.3f}", interval, str(mean.n))
        console.print(table)


def texts_for(scorer: Scorer, prompts: list[Prompt], language: str, english: str) -> list[str | None]:
    """What a scorer compares each image with; None where the prompt has no such caption."""
    if scorer.reads == "nothing":
        return [""] * len(prompts)
    caption = english if scorer.reads == "english" else language
    return [prompt.captions.get(caption) or None for prompt in prompts]


def metric_name(row: str, prompt_set: str) -> str:
    """Key in `metrics.json`; the teacher reads a culture concept's description, not its name."""
    return f"{row}.culture_described" if (row, prompt_set) == ("teacher", "culture") else f"{row}.{prompt_set}"
