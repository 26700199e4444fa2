"""What a change of the settings would save: the changed configuration is planned like any other, and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import ValidationError

from pea.config import Config, TrainConfig
from pea.config.yaml_text import merge_overrides
from pea.costs.plan import Asked, Plan, make_plan
from pea.errors import ConfigError

_SMALL_SKETCH = "{kind: fold, ratio: 64, values: int8}"
_SMALL_NOISE = "{kind: fold, ratio: 16, values: int8}"
_FEW_QUERIES = "{layers_per_record: 8, num_queries: 8, dtype: int8}"


@dataclass(frozen=True)
class Change:
    """Settings of another value, and the plan with them."""

    settings: tuple[str, ...]
    """As they stand behind a command, ``section.key=value``."""
    plan: Plan


def changes(config: Config, asked: Asked, plan: Plan) -> list[Change]:
    """The changes that this configuration leaves open, each planned at the rate of ``plan``."""
    same_rate = replace(asked, records_per_s=None, tflops=plan.tflops)
    planned = []
    for settings in candidates(config):
        try:
            planned.append(Change(settings, make_plan(with_settings(config, settings), same_rate)))
        except (ConfigError, ValidationError):
            continue  # this configuration does not allow it
    return planned


def candidates(config: Config) -> Iterator[tuple[str, ...]]:
    """Settings that would make something smaller, where they are not set like this already."""
    cache, train = config.cache, config.train
    if cache.draws_per_sample > 1:
        yield (f"cache.draws_per_sample={cache.draws_per_sample // 2}",)
    ratio = getattr(cache.sketch, "ratio", None)
    yield (f"cache.sketch={_SMALL_SKETCH}",) if ratio is None else (f"cache.sketch.ratio={2 * ratio:g}",)
    if cache.noise_pred_sketch is None:
        yield (f"cache.noise_pred_sketch={_SMALL_NOISE}",)
    if cache.moments_dtype == "float32":
        yield ("cache.moments_dtype=float16",)
    yield from _without_queries(config)
    kinds = [phase.kind for phase in train.all_phases]
    if "unet" in kinds:
        if train.steps is not None and not (train.phases and train.phases[-1].steps):
            yield (f"train.steps={max(1, train.steps // 2)}",)
        if train.gradient_checkpointing:
            yield from _without_recomputation(train)
        if len(kinds) > 1:
            yield (f"train.phases={_those_of(train, 'text', 'attention')}",)
        else:
            queries = () if cache.attention else (f"cache.attention={_FEW_QUERIES}",)
            yield ('train.phases=[{"kind": "attention"}]', *queries)


def _without_queries(config: Config) -> Iterator[tuple[str, ...]]:
    """With the phases that are left, where one asked for them."""
    phases = config.train.all_phases
    if config.cache.attention is None or any(train.attention_weight for _, train in phases):
        return
    kinds = [kind for kind, _ in phases]
    if "attention" not in kinds:
        yield ("cache.attention=null",)
    elif "unet" in kinds:
        yield "cache.attention=null", f"train.phases={_those_of(config.train, 'text', 'unet')}"


def _those_of(train: TrainConfig, *kinds: str) -> str:
    """The phases of these kinds, as a setting's value."""
    kept = [phase for phase in train.phases if phase.kind in kinds]
    return json.dumps([phase.model_dump(mode="json", exclude_none=True) for phase in kept])


def _without_recomputation(train: TrainConfig) -> Iterator[tuple[str, ...]]:
    """As it is, and with half the rows at a time, which need half the memory."""
    keep = "train.gradient_checkpointing=false"
    yield (keep,)
    if train.batch_size % 2 == 0 and not (train.phases and train.phases[-1].batch_size):
        batches = 2 * train.gradient_accumulation_steps
        yield keep, f"train.batch_size={train.batch_size // 2}", f"train.gradient_accumulation_steps={batches}"


def with_settings(config: Config, settings: tuple[str, ...]) -> Config:
    """The configuration with other values.

    Raises:
        ConfigError, ValidationError: they do not go together.
    """
    raw = config.model_dump(mode="json")
    if problems := merge_overrides(raw, list(settings)):
        raise ConfigError("settings cannot be read", got=" | ".join(problems), problems=problems)
    return Config.model_validate_json(json.dumps(raw))
