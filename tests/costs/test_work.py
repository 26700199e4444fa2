"""The arithmetic of a whole plan, its break-even, and that of changed settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pea.config import Config, PhaseConfig
from pea.costs.caching import Flops, read_models, unet_flops
from pea.costs.changes import candidates, with_settings
from pea.costs.work import PhaseWork, Work, work_of
from pea.errors import ConfigError
from tests.train_runs import variant

FLOPS = Flops(vae=5e9, text=1e9, unet=2e9)


def work(config: Config, trainings: int = 1, **train: Any) -> Work:
    models = read_models(config.teacher.folder)
    return work_of(variant(config, Path(), **train), models, FLOPS, "16x16", 1000, trainings)


@pytest.mark.slow
def test_a_training_is_the_sum_of_its_phases(tiny_sdxl: Config) -> None:
    one = unet_flops(read_models(tiny_sdxl.teacher.folder).unet, (4, 8, 8), 77)
    counted = work(tiny_sdxl, 3, steps=10, batch_size=8, culture_fraction=0.25)
    [phase] = counted.phases
    assert (phase.kind, phase.steps, phase.rows, phase.parallel_rows) == ("unet", 10, 80, 60)
    assert phase.online_flop - phase.flop == pytest.approx(60 * (one + FLOPS.vae + FLOPS.text)), (
        "the teacher, each time"
    )
    draws = tiny_sdxl.cache.draws_per_sample
    assert counted.caching == 1000 * (draws * FLOPS.unet + FLOPS.vae + FLOPS.text)
    assert counted.cached_total == pytest.approx(counted.caching + 3 * phase.flop)
    recomputed = work(tiny_sdxl, 3, steps=10, batch_size=8, culture_fraction=0.25, gradient_checkpointing=True)
    assert recomputed.training == pytest.approx(counted.training + 80 * one), "one pass more for every row"


def test_phases_before_the_unet_ask_no_teacher(tiny_sdxl: Config) -> None:
    text, unet = PhaseConfig(kind="text", steps=4), PhaseConfig(kind="unet", steps=2)
    counted = work(tiny_sdxl, phases=(text, unet), batch_size=8)
    assert [phase.kind for phase in counted.phases] == ["text", "unet"]
    assert counted.phases[0].online_flop == counted.phases[0].flop > 0, "the same on both sides of the comparison"
    assert counted.online == counted.phases[0].flop + counted.phases[1].online_flop
    assert counted.parallel_rows == counted.phases[1].parallel_rows
    assert work(tiny_sdxl, phases=(text,), batch_size=8).online == 0


def test_the_break_even_is_where_the_saving_turns() -> None:
    def planned(trainings: int) -> Work:
        return Work(
            caching=25.0, phases=(PhaseWork("unet", 1, 1, 1, flop=10.0, online_flop=20.0),), trainings=trainings
        )

    assert planned(1).break_even_trainings == 3
    assert planned(2).saving < 0 < planned(3).saving == pytest.approx(1 - 55 / 60)
    never = Work(caching=1.0, phases=(PhaseWork("unet", 1, 1, 1, flop=10.0, online_flop=10.0),), trainings=9)
    assert never.break_even_trainings is None and never.saving < 0
    alone = Work(caching=1.0, phases=(PhaseWork("attention", 1, 1, 1, flop=10.0, online_flop=0.0),), trainings=1)
    assert alone.saving == 0


def test_changes_are_settings_that_are_not_set_already(tiny_sdxl: Config) -> None:
    first = variant(tiny_sdxl, Path(), steps=10, batch_size=8, gradient_checkpointing=True)
    offered = [" ".join(each) for each in candidates(first)]
    assert "train.steps=5" in offered and "train.gradient_checkpointing=false" in offered
    for each in candidates(first):
        try:
            changed = with_settings(first, each)
        except ConfigError:
            continue
        assert changed != first
        assert each not in list(candidates(changed)), "offered once"
    phases = variant(tiny_sdxl, Path(), phases=(PhaseConfig(kind="attention"),))
    kept = with_settings(phases, ("cache.attention={}",))
    assert "cache.attention=null" not in [each for said in candidates(kept) for each in said], "its phase needs them"
    before_the_unet = with_settings(kept, ('train.phases=[{"kind": "attention"}, {"kind": "unet", "steps": 7}]',))
    assert ("cache.attention=null", 'train.phases=[{"kind": "unet", "steps": 7}]') in candidates(before_the_unet)
    assert ('train.phases=[{"kind": "attention"}]',) in candidates(before_the_unet)
    with pytest.raises(ConfigError):
        with_settings(first, ("train.steps",))
