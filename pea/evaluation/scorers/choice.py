"""Which scorers there are, and those that a configuration gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pea.config import ScorersConfig
from pea.evaluation.scorers.aesthetic import AestheticScore
from pea.evaluation.scorers.clip_scorers import EnglishClip, HumanPreferenceScore, PickScore
from pea.evaluation.scorers.image_reward import ImageReward
from pea.evaluation.scorers.scorer import Scorer

SCORERS: dict[str, Callable[[Path, torch.device | str], Scorer]] = {
    kind.name: kind.load for kind in (EnglishClip, PickScore, HumanPreferenceScore, ImageReward, AestheticScore)
}
"""Name in `evaluate.scorers` -> what loads it."""


def load_scorers(places: ScorersConfig, device: torch.device | str) -> list[Scorer]:
    """Each scorer whose weights are given, on the CPU until it scores.

    Raises:
        CheckpointError: one is missing, incomplete or of another kind.
    """
    given = {name: place for name in SCORERS if (place := getattr(places, name)) is not None}
    return [SCORERS[name](place, device) for name, place in given.items()]
