"""What scores the images of an evaluation: a judge that reads attributes, a CLIP of the prompts' language, or both."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from rich.table import Table

from pea.config import Config
from pea.evaluation.scorers.clip_score import ClipScorer
from pea.evaluation.drawing import Images
from pea.evaluation.judge import load_judge
from pea.evaluation.metrics import Accuracy, average, score
from pea.evaluation.prompts import Prompt, texts_in
from pea.evaluation.record import PROMPT_SCORES, Settings
from pea.storage.durable import write_text
from stages.command.console import Console
from stages.score_settings import CLIP, JUDGE, ScoreSettings

_BATCH = 64


class Scoring:
    """Collects scores by metric name: ``row.set`` is the judge's accuracy, ``row.set.clip`` the mean CLIP score."""

    def __init__(self, config: Config, device: torch.device, settings: ScoreSettings) -> None:
        evaluate = config.evaluate
        self.settings = settings
        self.folder = config.run_dir / "evaluate"
        self.judge = load_judge(evaluate.judge) if evaluate.judge else None
        self.clip = ClipScorer.from_pretrained(evaluate.clip, device) if evaluate.clip else None
        self.prompts = evaluate.prompts
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
        if self.clip is not None:
            texts = texts_in(prompts, language, self.prompts[prompt_set])
            starts = range(0, len(texts), _BATCH)
            cosines = [self.clip.score(images[at : at + _BATCH], texts[at : at + _BATCH]) for at in starts]
            values = np.concatenate(cosines).tolist()
            mean = average(values)
            settings = self.settings.of_score(row, prompt_set, CLIP)
            self._keep(f"{name}.clip", mean, {"mean": mean.as_dict()}, settings)
            for line, value in zip(each, values, strict=True):
                line["clip"] = value
        if self.judge is not None or self.clip is not None:
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
            console.print("neither evaluate.judge nor evaluate.clip is given: images only")
            return
        table = Table("row", "score", "95 % interval", "n", title="Judge's accuracy, mean over attributes; CLIP scores")
        for name, mean in self.means.items():
            interval = f"{mean.low:.3f} to {mean.high:.3f}" if math.isfinite(mean.low) else "unknown"
            table.add_row(name, f"{mean.accuracy:.3f}", interval, str(mean.n))
        console.print(table)


def metric_name(row: str, prompt_set: str) -> str:
    """Key in `metrics.json`; the teacher reads a culture concept's description, not its name."""
    return f"{row}.culture_described" if (row, prompt_set) == ("teacher", "culture") else f"{row}.{prompt_set}"
