"""Bootstrap intervals of mean scores, and of the difference between two variants on the same prompts; pure.

Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals; whole groups are
drawn, since the prompts of one concept are not independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pea.errors import EvaluationError
from pea.evaluation.metrics import Accuracy

_RESAMPLES = 2000
_TIE = 1e-9
"""Two scores that differ by less than this share of the larger are equal."""


@dataclass(frozen=True)
class Paired:
    """The first variant against the second, prompt by prompt."""

    difference: Accuracy
    """Mean of first minus second."""
    wins: int
    ties: int
    losses: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"difference": self.difference.as_dict(), "wins": self.wins, "ties": self.ties, "losses": self.losses}


def bootstrap(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> Accuracy:
    """Mean with its 95 % percentile interval over groups (`n` counts them); one group alone knows no interval.

    Raises:
        EvaluationError: there is no value.
    """
    if not values:
        raise EvaluationError("nothing to take the mean of")
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums[names[group]] += value
        counts[names[group]] += 1
    mean = float(sums.sum() / counts.sum())
    if len(names) == 1:
        return Accuracy(mean, -math.inf, math.inf, 1)
    drawn = np.random.Generator(np.random.Philox(seed)).integers(0, len(names), (_RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Accuracy(mean, float(low), float(high), len(names))


def compare(
    first: Mapping[str, float], second: Mapping[str, float], groups: Mapping[str, str], seed: int = 0
) -> Paired:
    """Prompt id -> score of each of two variants, over the prompts that both have; `groups`: of each prompt.

    Raises:
        EvaluationError: they have no prompt in common.
    """
    common = [name for name in first if name in second]
    if not common:
        raise EvaluationError("nothing to compare", expected="a prompt that both variants drew", got="none")
    differences = [first[name] - second[name] for name in common]
    tied = [abs(d) <= _TIE * max(abs(first[n]), abs(second[n])) for d, n in zip(differences, common, strict=True)]
    wins = sum(difference > 0 and not tie for difference, tie in zip(differences, tied, strict=True))
    losses = len(common) - sum(tied) - wins
    return Paired(bootstrap(differences, [groups[name] for name in common], seed), wins, sum(tied), losses)
