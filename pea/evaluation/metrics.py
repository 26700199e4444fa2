"""Scores of generated images, from what the judge read and what the prompt asked for; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pea.errors import EvaluationError

CONCEPT = "concept"
"""The attribute that names what several prompts ask for in turn: a dish, a festival."""
_Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
_FEW_DEGREES = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
"""Of Student's t, by degrees of freedom."""
_NO_ERROR = 1e-18
"""Variances below this are rounding."""


@dataclass(frozen=True)
class Accuracy:
    """Share of correct readings, or another mean, with its 95 % interval."""

    accuracy: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON, which has no infinity: a limit that nothing is known of is null."""
        low, high = (limit if math.isfinite(limit) else None for limit in (self.low, self.high))
        return {"accuracy": self.accuracy, "low": low, "high": high, "n": self.n}

    def within(self, low: float, high: float) -> Accuracy:
        """With an interval that does not leave what is possible."""
        return Accuracy(self.accuracy, max(low, self.low), min(high, self.high), self.n)


@dataclass(frozen=True)
class Score:
    """One method on one prompt set."""

    mean: Accuracy
    """Mean over the attributes."""
    attributes: dict[str, Accuracy]
    """Attribute -> its accuracy over the prompts that name it."""
    concepts: dict[str, Accuracy]
    """Concept -> its mean over the prompts that ask for it; empty where prompts name no concept."""
    prompts: list[float]
    """Share of each prompt's attributes that its image shows."""

    def as_dict(self) -> dict[str, object]:
        """For JSON; without the single prompts."""
        named: dict[str, object] = {"mean": self.mean.as_dict()}
        for name, values in (("attributes", self.attributes), ("concepts", self.concepts)):
            if values:
                named[name] = {key: accuracy.as_dict() for key, accuracy in values.items()}
        return named


def score(wanted: Sequence[Mapping[str, str]], read: Mapping[str, Sequence[str]]) -> Score:
    """Compare what each prompt asks for (`wanted[i]`) with what was read (`read[attribute][i]`).

    The interval of the mean takes as independent draws the prompts, or the concepts (an attribute `CONCEPT`) where
    prompts repeat them: a dish that the model does not know fails in all its prompts. `n` counts these draws.

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
    hits: list[list[bool]] = [[] for _ in wanted]
    for name in names:
        rows = [row for row, attributes_of_row in enumerate(wanted) if name in attributes_of_row]
        for row in rows:
            hits[row].append(wanted[row][name] == read[name][row])
        attributes[name] = proportion(sum(hits[row][-1] for row in rows), len(rows))
        for row in rows:
            errors[row] += (hits[row][-1] - attributes[name].accuracy) / (len(rows) * len(names))
    shares = [sum(each) / len(each) if each else 0.0 for each in hits]
    groups = [attributes_of_row.get(CONCEPT, f"prompt {row}") for row, attributes_of_row in enumerate(wanted)]
    mean = sum(accuracy.accuracy for accuracy in attributes.values()) / len(names)
    concepts = {
        name: _of_group(name, shares, groups) for name in sorted({each[CONCEPT] for each in wanted if CONCEPT in each})
    }
    return Score(_interval(mean, errors, groups), attributes, concepts, shares)


def _of_group(group: str, shares: Sequence[float], groups: Sequence[str]) -> Accuracy:
    """The mean of the prompts of one concept, which are independent of each other."""
    own = [share for share, each in zip(shares, groups, strict=True) if each == group]
    return grouped_mean(own, [str(number) for number in range(len(own))])


def grouped_mean(values: Sequence[float], groups: Sequence[str]) -> Accuracy:
    """Mean of values from 0 to 1 of which those of a group are not independent; `n` counts the groups.

    Raises:
        EvaluationError: there is no value.
    """
    if not values:
        raise EvaluationError("nothing to take the mean of")
    mean = sum(values) / len(values)
    return _interval(mean, [(value - mean) / len(values) for value in values], groups)


def _interval(mean: float, errors: Sequence[float], groups: Sequence[str]) -> Accuracy:
    """Of a mean whose error is the sum of these, independent between groups.

    With one group, or without any error, the groups are counted as hits and misses (Wilson): seven concepts that all
    came out right do not prove that the eighth will.

    Source: cluster-robust variance with the correction G / (G - 1) and Student's t for few groups; A. C. Cameron and
    D. L. Miller, A practitioner's guide to cluster-robust inference (2015).
    """
    sums: dict[str, float] = {}
    for group, error in zip(groups, errors, strict=True):
        sums[group] = sums.get(group, 0.0) + error
    count = len(sums)
    variance = sum(error**2 for error in sums.values())
    if count == 1 or variance < _NO_ERROR:
        return wilson(mean, count)
    half = student_quantile(count - 1) * math.sqrt(variance * count / (count - 1))
    return Accuracy(mean, mean - half, mean + half, count).within(0.0, 1.0)


def average(values: Sequence[float], groups: Sequence[str] | None = None) -> Accuracy:
    """Mean of scores with the interval of Student's t; a single value, or group, knows no interval.

    `groups`: of values that are not independent of each other, such as a concept's; `n` counts them.

    Raises:
        EvaluationError: there is no value.
    """
    if not values:
        raise EvaluationError("nothing to take the mean of")
    mean, sums = sum(values) / len(values), dict[str, float]()
    for number, value in enumerate(values):
        group = str(number) if groups is None else groups[number]
        sums[group] = sums.get(group, 0.0) + (value - mean) / len(values)
    n = len(sums)
    variance = sum(error**2 for error in sums.values()) * n / (n - 1) if n > 1 else math.inf
    half = student_quantile(n - 1) * math.sqrt(variance) if n > 1 else math.inf
    return Accuracy(mean, mean - half, mean + half, n)


def proportion(hits: int, n: int) -> Accuracy:
    """A share with its Wilson interval; n of 0 knows nothing."""
    return wilson(hits / n, n) if n else Accuracy(float("nan"), 0.0, 1.0, 0)


def wilson(share: float, n: int) -> Accuracy:
    """A share of `n` independent draws with its interval.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(max(0.0, share * (1 - share)) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
    # Exactly 0 and 1 are the limits at no hit and at hits alone; rounding must not step over them.
    low, high = (0.0 if share <= 0 else centre - half), (1.0 if share >= 1 else centre + half)
    return Accuracy(share, low, high, n)


def student_quantile(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t, within 0.1 % from three degrees of freedom.

    Source: G. W. Hill, Algorithm 396: Student's t-quantiles (1970), as the Cornish-Fisher expansion about the normal
    quantile; tabled below, where the expansion is not exact enough.
    """
    if degrees in _FEW_DEGREES:
        return _FEW_DEGREES[degrees]
    z, v = _Z, float(degrees)
    terms = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    return z + sum((term / v**power for power, term in enumerate(terms, 1)), start=0.0)
