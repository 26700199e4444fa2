"""What the page draws: one prompt by the adapter, and in English by the teacher, from the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pea.errors import ConfigError
from pea.evaluation.base_model import check_base_model
from pea.evaluation.drawing import Drawer, Images, image_seed
from pea.models.english import EnglishEncoder
from pea.pipeline import PEAPrompt


@dataclass(frozen=True)
class Wish:
    """What somebody asked for."""

    language: str
    """One of `Studio.languages`."""
    base: str
    """One of `Studio.bases`."""
    prompt: str
    english: str = ""
    """What the teacher is asked for; empty: it is not."""
    translation: str = ""
    """The prompt's words in English, one by one, as a dictionary gives them; empty: not drawn."""
    negative_prompt: str = ""
    """In the adapter's language."""
    seed: int = 0
    steps: int = 25
    guidance: float = 5.0


@dataclass(frozen=True)
class Answer:
    """Images uint8 `[H, W, 3]`, None where nothing was asked for, and what there is to say of the prompt."""

    adapter: Images
    teacher: Images | None
    translation: Images | None
    notes: tuple[str, ...]


class Studio:
    """Adapters by language and base models by name; the models of one pair are held at a time."""

    def __init__(self, adapters: Mapping[str, PEAPrompt], bases: Mapping[str, Path], device: torch.device) -> None:
        """`adapters`: language -> adapter, each for every one of `bases`, name -> folder.

        Raises:
            CheckpointError: a base model is of another shape than an adapter's.
            ConfigError: there is no adapter, or no base model.
        """
        if not adapters or not bases:
            raise ConfigError("nothing to show", expected="an adapter and a base model")
        for pea in adapters.values():
            for folder in bases.values():
                check_base_model(pea.adapter, folder)
        self.adapters, self.bases, self.device = dict(adapters), dict(bases), device
        self._held: tuple[tuple[str, str], Drawer, EnglishEncoder] | None = None

    @property
    def languages(self) -> list[str]:
        """What can be chosen."""
        return list(self.adapters)

    def draw(self, wish: Wish) -> Answer:
        """All that was asked for.

        Raises:
            ConfigError: a language or base model that is not here, or no steps.
        """
        if wish.language not in self.adapters or wish.base not in self.bases:
            raise ConfigError(
                "not here", expected=", ".join([*self.adapters, *self.bases]), got=f"{wish.language}, {wish.base}"
            )
        if wish.steps < 1 or wish.guidance < 0:
            raise ConfigError("cannot be drawn", expected="one step or more, and no negative guidance", got=wish.steps)
        pea = self.adapters[wish.language].to(self.device)
        drawer, english = self._models(wish, pea)
        drawer.num_inference_steps, drawer.guidance_scale = wish.steps, wish.guidance
        seed = [image_seed(wish.seed, "0")]
        drawer.use_changes(wanted=True)
        native = drawer.draw(*pea.encode_both([wish.prompt], [wish.negative_prompt]), seed)[0]
        drawer.use_changes(wanted=False)

        def by_teacher(text: str) -> Images | None:
            return drawer.draw(english.encode([text]), english.encode([""]), seed)[0] if text.strip() else None

        notes = tuple(pea.notes([wish.prompt, wish.negative_prompt]))
        return Answer(native, by_teacher(wish.english), by_teacher(wish.translation), notes)

    def _models(self, wish: Wish, pea: PEAPrompt) -> tuple[Drawer, EnglishEncoder]:
        key = (wish.language, wish.base)
        if self._held is None or self._held[0] != key:
            self._held, folder = None, self.bases[wish.base]  # the former ones go first: two do not fit every GPU
            drawer = Drawer(folder, self.device, num_inference_steps=wish.steps, guidance_scale=wish.guidance)
            if pea.folder is not None:
                drawer.load_changes(pea.folder)
            self._held = key, drawer, EnglishEncoder.from_checkpoint(folder, device=self.device)
        return self._held[1:]
