"""Scores of generated images, from what the judge read and what the prompt asked for; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pea.errors import EvaluationError

_Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Accuracy:
    """Share of correct readings, or another mean, with its 95 % interval."""

    accuracy: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return {"accuracy": self.accuracy, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Score:
    """One method on one prompt set."""

    mean: Accuracy
    """Mean over the attributes."""
    attributes: dict[str, Accuracy]
    """Attribute -> its accuracy over the prompts that name it."""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        attributes = {name: accuracy.as_dict() for name, accuracy in self.attributes.items()}
        return {"mean": self.mean.as_dict(), "attributes": attributes}


def score(wanted: Sequence[Mapping[str, str]], read: Mapping[str, Sequence[str]]) -> Score:
    """Compare what each prompt asks for (`wanted[i]`) with what was read (`read[attribute][i]`).

    The interval of the mean takes the prompts as the independent draws: each prompt's attributes stand or fall
    together.

    Raises:
        EvaluationError: there is no prompt, or a prompt names an attribute that the judge does not read.
    """
    names = sorted({name for attributes in wanted for name in attributes})
    unknown = [name for name in names if name not in read]
    if unknown or not names:
        raise EvaluationError(
            "cannot score these prompts", expected=f"attributes among {', '.join(sorted(read))}", got=", ".join(unknown)
        )
    attributes, errors = {}, [0.0] * len(wanted)
    for name in names:
        rows = [row for row, attributes_of_row in enumerate(wanted) if name in attributes_of_row]
        hits = [wanted[row][name] == read[name][row] for row in rows]
        attributes[name] = proportion(sum(hits), len(hits))
        for row, hit in zip(rows, hits, strict=True):
            errors[row] += (hit - attributes[name].accuracy) / (len(rows) * len(names))
    mean = sum(accuracy.accuracy for accuracy in attributes.values()) / len(names)
    half = _Z * math.sqrt(sum(error**2 for error in errors))
    return Score(Accuracy(mean, max(0.0, mean - half), min(1.0, mean + half), len(wanted)), attributes)


def average(values: Sequence[float]) -> Accuracy:
    """Mean of scores with the interval of the normal distribution; a single value knows no interval.

    Raises:
        EvaluationError: there is no value.
    """
    if not values:
        raise EvaluationError("nothing to take the mean of")
    n, mean = len(values), sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else math.inf
    half = _Z * math.sqrt(variance / n)
    return Accuracy(mean, mean - half, mean + half, n)


def proportion(hits: int, n: int) -> Accuracy:
    """A share with its Wilson interval; n of 0 knows nothing.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if n == 0:
        return Accuracy(float("nan"), 0.0, 1.0, 0)
    share = hits / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
    # Exactly 0 and 1 are the limits at 0 and n hits; rounding must not step over them.
    low, high = (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)
    return Accuracy(share, low, high, n)
