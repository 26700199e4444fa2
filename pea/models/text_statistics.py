"""Mean and spread of a teacher's text states: what an adapter's start is scaled to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pea.models.conditioning import Conditioning
from pea.storage.digests import canonical_json, sha256_text

_DIGITS = 6
_AT_ONCE = 64


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of every channel of some states, `[D]` each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Root mean square of the deviations of all channels from their means."""
        return math.sqrt(sum(value * value for value in self.std) / len(self.std))

    @property
    def size(self) -> float:
        """Root mean square of the states themselves."""
        squares = (mean * mean + std * std for mean, std in zip(self.mean, self.std, strict=True))
        return math.sqrt(sum(squares) / len(self.std))


@dataclass(frozen=True)
class TextStatistics:
    """Of the hidden states over captions and tokens, and of the pooled embeddings over captions."""

    num_captions: int
    hidden: Moments
    pooled: Moments | None
    """None for SD1.5-shaped teachers."""

    def to_json(self) -> str:
        """As it is stored beside a cache."""
        return json.dumps(self._record()) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> TextStatistics:
        """What `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        raw = json.loads(text)
        try:
            pooled = None if raw["pooled"] is None else _moments_in(raw["pooled"])
            return cls(int(raw["num_captions"]), _moments_in(raw["hidden"]), pooled)
        except (KeyError, TypeError) as error:
            raise ValueError("no statistics of text states") from error

    @property
    def digest(self) -> str:
        """sha256 of everything."""
        return sha256_text(canonical_json(self._record()))

    def _record(self) -> dict[str, Any]:
        pooled = None if self.pooled is None else vars(self.pooled)
        return {"num_captions": self.num_captions, "hidden": vars(self.hidden), "pooled": pooled}


def _moments_in(raw: Mapping[str, Sequence[float]]) -> Moments:
    found = Moments(tuple(map(float, raw["mean"])), tuple(map(float, raw["std"])))
    if not found.mean or len(found.mean) != len(found.std) or not all(map(math.isfinite, found.mean + found.std)):
        raise ValueError("channels without a finite mean and spread")
    return found


def text_statistics(groups: Iterable[Conditioning]) -> TextStatistics:
    """Statistics of text states that come in groups of captions, `[B, L, D]` and `[B, P]` (or None).

    Raises:
        ValueError: there are none, or they are not finite.
    """
    hidden, pooled, count = [], [], 0
    for states, embeds in groups:
        count += len(states)
        hidden.append(states.detach().double().cpu().flatten(0, 1))
        if embeds is not None:
            pooled.append(embeds.detach().double().cpu())
    if not count:
        raise ValueError("no captions to take statistics of")
    return TextStatistics(count, moments(torch.cat(hidden)), moments(torch.cat(pooled)) if pooled else None)


def encoded_statistics(encode: Callable[[Sequence[str]], Conditioning], captions: Sequence[str]) -> TextStatistics:
    """Statistics of an English encoder's answers to captions.

    Raises:
        ValueError: there are none, or the answers are not finite.
    """
    return text_statistics(encode(captions[start : start + _AT_ONCE]) for start in range(0, len(captions), _AT_ONCE))


def moments(rows: Tensor) -> Moments:
    """Moments of rows `[N, D]`, to six digits: on another machine the last bits may differ.

    Raises:
        ValueError: they are not finite.
    """
    rows = rows.double()
    found = [_rounded(each) for each in (rows.mean(0), rows.std(0, correction=0))]
    if not all(math.isfinite(value) for each in found for value in each):
        raise ValueError("text states that are not finite")
    return Moments(*found)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values.tolist())
