"""Easy timesteps first: distillation begins with the noisiest records and takes in the others stage by stage.

The stages follow the timesteps that the cache keeps beside its records, so nothing is computed anew.

Source: arXiv 2403.10348 (Denoising Task Difficulty-based Curriculum): clusters of timesteps, from noisy to clean, each
stage with all the clusters so far. There, a stage ends where its loss stops falling; here, all are equally long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pea.batches.batch import Batch
from pea.batches.dataset import TrainingData


@dataclass(frozen=True)
class Stage:
    """Consecutive batches that read records of at least one timestep."""

    first_batch: int
    """Index of its first batch in the run."""
    min_timestep: int


def stages(num_batches: int, num_stages: int, num_train_timesteps: int) -> list[Stage]:
    """The stages of a curriculum of `num_batches` batches; the last takes in every timestep, and has no end."""
    clusters_left = range(num_stages - 1, -1, -1)
    return [
        Stage(number * num_batches // num_stages, num_train_timesteps * left // num_stages)
        for number, left in enumerate(clusters_left)
    ]


class Curriculum:
    """Batches of a run, each from the records of its stage; like everything else a pure function of the index."""

    def __init__(self, stages: Sequence[Stage], open_data: Callable[[int], TrainingData]) -> None:
        """`open_data(min_timestep)` opens the records of at least that timestep; two stages are held at a time."""
        self.stages = list(stages)
        self._data = lru_cache(maxsize=2)(open_data)

    def batch(self, index: int) -> Batch:
        """Batch `index` of the run."""
        stage = next(each for each in reversed(self.stages) if each.first_batch <= index)
        return self._data(stage.min_timestep).batch(index)
