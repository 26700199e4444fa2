"""The arithmetic of a whole plan: filling the cache, one training from it by phases, and the same training online.

Online is the recipe without a cache: the rows of the UNet phase, each with a pass of teacher, VAE and English encoders.
Left out on both sides: native text encoders, whose states are computed once for each caption, and the VAE's pass over
culture images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pea.config import Config, Phase
from pea.config.phases import PhaseKind
from pea.costs.caching import Flops, Models
from pea.costs.training import RowFlops
from pea.models.adapter import new_adapter
from pea.training.recipe import with_recipe

_ENCODER_WIDTH = 1024
"""Of the native text states, where nothing else is known; it changes the adapter's first layer alone."""
_MAX_TOKENS = 77


@dataclass(frozen=True)
class PhaseWork:
    """One phase of one training."""

    kind: PhaseKind
    steps: int
    rows: float
    """Parallel and culture."""
    parallel_rows: float
    flop: float
    online_flop: float
    """With the teacher asked at every step, where the phase asks it; of an attention phase, which needs a cache, 0."""

    @property
    def flop_per_row(self) -> float:
        """Of one row, from the cache."""
        return self.flop / self.rows


@dataclass(frozen=True)
class Work:
    """Floating-point operations of everything that is planned."""

    caching: float
    phases: tuple[PhaseWork, ...]
    """Of one training: one language, one run."""
    trainings: int
    """Languages x runs."""

    @property
    def training(self) -> float:
        """Of one training from the cache."""
        return sum(phase.flop for phase in self.phases)

    @property
    def online(self) -> float:
        """Of one training without a cache; 0 where there is none: nothing asks the teacher's UNet."""
        asks = any(phase.kind == "unet" for phase in self.phases)
        return sum(phase.online_flop for phase in self.phases) if asks else 0.0

    @property
    def cached_total(self) -> float:
        """Of all trainings, and the cache."""
        return self.caching + self.trainings * self.training

    @property
    def online_total(self) -> float:
        """Of all trainings without a cache."""
        return self.trainings * self.online

    @property
    def saving(self) -> float:
        """Share of the online arithmetic that the cache saves; negative if online is cheaper, 0 without online."""
        return 1 - self.cached_total / self.online_total if self.online else 0.0

    @property
    def break_even_trainings(self) -> int | None:
        """Trainings from which on the cache is no dearer than online; None: never."""
        gain = self.online - self.training
        return math.ceil(self.caching / gain) if gain > 0 else None

    @property
    def parallel_rows(self) -> float:
        """In the UNet's passes of one training."""
        return sum(phase.parallel_rows for phase in self.phases if phase.kind == "unet")


def work_of(config: Config, models: Models, flops: Flops, bucket: str, num_samples: int, trainings: int) -> Work:
    """All work of a plan; ``bucket``: the one that stands for all, ``flops``: of one record of it."""
    num_draws = config.cache.draws_per_sample
    phases = tuple(_phase(config, each, models, flops, bucket, num_samples) for each in config.train.all_phases)
    return Work(num_samples * num_draws * flops.caching(num_draws), phases, trainings)


def _phase(config: Config, phase: Phase, models: Models, flops: Flops, bucket: str, num_samples: int) -> PhaseWork:
    sizes = config.student.adapter
    kind, train = with_recipe(phase, sizes.hidden_size, 1, lambda: num_samples)
    assert train.steps is not None
    culture = train.culture_fraction if config.corpora.culture and kind == "unet" else 0.0
    adapter = new_adapter(
        models.unet,
        _ENCODER_WIDTH,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        max_tokens=config.student.max_tokens or _MAX_TOKENS,
        seed=0,
    )

    def per_row(targets: str) -> float:
        changed = config.model_copy(update={"train": train.model_copy(update={"targets": targets})})
        return float(getattr(RowFlops(changed, adapter, {bucket: (1 - culture, culture)}, models), kind))

    rows = train.steps * train.batch_size * (train.gradient_accumulation_steps if kind == "unet" else 1)
    cached = per_row("cached")
    if kind == "unet":
        online = per_row("live") + (1 - culture) * (flops.vae + flops.text)
    else:  # text alignment is the same without a cache; an attention phase there is none
        online = cached if kind == "text" else 0.0
    return PhaseWork(kind, train.steps, rows, rows * (1 - culture), rows * cached, rows * online)
