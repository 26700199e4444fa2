"""What the scores and drawings of `pea eval` depend on, by row and prompt set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pea.config import Config
from pea.evaluation.prompts import Prompt
from pea.evaluation.record import Settings, adapter_digest, prompts_digest, weights_digest
from pea.evaluation.scorers.scorer import Scorer
from pea.models.tensor_files import digest_of

JUDGE, CLIP = "judge", "clip"


class ScoreSettings:
    """The present settings of an evaluation."""

    def __init__(self, config: Config, sets: Mapping[str, Sequence[Prompt]]) -> None:
        """Reads the weights that count once: of the teacher's UNet, the adapter, the judge and the CLIP.

        Raises:
            CheckpointError: the teacher's UNet is missing.
        """
        self._config, self._sets = config, sets
        evaluate = config.evaluate
        self._teacher = digest_of(config.teacher.folder / "unet")
        self._adapter = adapter_digest(config.adapter_dir)
        self._scorers = {
            name: weights_digest(folder, "*")
            for name, folder in ((JUDGE, evaluate.judge), (CLIP, evaluate.clip))
            if folder is not None
        }

    def note_scorers(self, scorers: Iterable[Scorer]) -> None:
        """Take in the digests of published scorers, which are known once they are loaded."""
        self._scorers |= {scorer.name: scorer.digest for scorer in scorers}

    def of_drawing(self, row: str, prompt_set: str) -> Settings:
        """Of the images of one row and prompt set; of the prompts, all count, also those that a row leaves out."""
        evaluate, prompts = self._config.evaluate, self._sets[prompt_set]
        settings: Settings = {
            "row": row,
            "prompt_set": prompt_set,
            "prompts": prompts_digest(prompts),
            "num_prompts": len(prompts),
            "seed": evaluate.seed,
            "num_inference_steps": evaluate.num_inference_steps,
            "guidance_scale": evaluate.guidance_scale,
            "scheduler": evaluate.scheduler,
            "teacher": self._teacher,
        }
        if row.startswith("adapter"):
            settings["adapter"] = self._adapter
        if row == "no_adapter":
            settings["encoders"] = [str(place) for place in self._config.student.places]
        return settings

    def of_score(self, row: str, prompt_set: str, scorer: str) -> Settings:
        """Of one score of them; `scorer`: `JUDGE`, `CLIP` or the name of a published one."""
        return self.of_drawing(row, prompt_set) | {"scorer": scorer, "scorer_weights": self._scorers.get(scorer)}

    def present(self, former: Settings) -> Settings:
        """What the row, prompt set and scorer of former settings have now; empty: there is no such thing any more."""
        row, prompt_set = str(former.get("row", "")), str(former.get("prompt_set", ""))
        if not row or prompt_set not in self._sets:
            return {}
        if "scorer" not in former:
            return self.of_drawing(row, prompt_set)
        # A scorer that this evaluation does not ask for says nothing against its former scores.
        scorer = str(former["scorer"])
        weights = self._scorers.get(scorer, former.get("scorer_weights"))
        return self.of_score(row, prompt_set, scorer) | {"scorer_weights": weights}

    def hold(self, former: Settings) -> bool:
        """Whether what was measured with former settings may stand beside what is measured with the present ones."""
        return bool(former) and {"scheduler": "ddim"} | former == self.present(former)  # there was no other before
