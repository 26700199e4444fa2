"""Options of the recipe: each changes exactly what it should."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pea.batches.curriculum import Curriculum, Stage, stages
from pea.batches.selection import Selection, is_held_out
from pea.cache import Cache
from pea.config import Config, PhaseConfig
from pea.draws.recipe import DrawRecipe, noise, noise_batch
from pea.errors import CacheError, ConfigError, IdentityError
from pea.models.conditioning import Conditioning
from pea.training.student import disturbed
from stages import train_adapter
from stages.command.console import Console
from stages.training.setup import prepare
from tests.tiny_setup import fill_cache
from tests.train_runs import log_rows, same, variant, weights

QUIET = Console(quiet=True)
CPU = torch.device("cpu")


def _with_cache(config: Config, folder: Path, **cache: object) -> Config:
    """The same corpora with a cache of another recipe."""
    changed = config.model_copy(update={"cache": config.cache.model_copy(update=cache), "run_dir": folder / "run"})
    for corpus in ("parallel", "culture"):
        fill_cache(changed, corpus, config.run_dir.parent)
    return changed


@pytest.mark.slow
def test_without_a_limit_gradients_are_not_clipped(tiny_sdxl: Config, tmp_path: Path) -> None:
    text = PhaseConfig(kind="text", steps=2, batch_size=4)
    for phases in ((), (text,)):
        found = {}
        for limit in (None, 1e9, 1e-7):
            run = variant(tiny_sdxl, tmp_path / f"{limit}{len(phases)}", phases=phases, steps=2, max_grad_norm=limit)
            train_adapter.run(run, QUIET)
            found[limit] = weights(run)
        assert same(found[None], found[1e9]) and not same(found[None], found[1e-7])


@pytest.mark.slow
def test_a_random_crop_is_in_the_time_ids(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = _with_cache(tiny_sdxl, tmp_path, crop="random", buckets=((16, 16),))
    crops = [
        bucket.read(["time_ids"], 0, bucket.num_samples)["time_ids"][:, 2:4]
        for shard in Cache.open(config.cache_dir("parallel")).shards
        for bucket in shard.buckets.values()
    ]
    lefts = np.concatenate(crops)[:, 1]
    assert (np.concatenate(crops)[:, 0] == 0).all() and lefts.max() <= 8 and len(set(lefts.tolist()) - {0, 4}) >= 2


@pytest.mark.slow
def test_noise_offset_shifts_whole_channels() -> None:
    plain, offset = (DrawRecipe(3, 0.1, 1000, noise_offset=value) for value in (0.0, 0.5))
    shift = noise(offset, "t/a", 2, (4, 6, 5)) - noise(plain, "t/a", 2, (4, 6, 5))
    assert np.abs(shift - shift[:, :1, :1]).max() < 1e-6, "one shift per channel"
    assert len({round(float(value), 4) for value in shift[:, 0, 0]}) == 4 and np.abs(shift).max() < 0.5 * 5
    both = noise_batch(offset, ["t/a", "t/b"], [2, 0], (4, 6, 5))
    assert np.array_equal(both[0], noise(offset, "t/a", 2, (4, 6, 5)))
    many = [noise(offset, f"t/{number}", 0, (4, 1, 1)) for number in range(2000)]
    assert np.std(many) == pytest.approx(math.sqrt(1 + 0.5**2), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [{"noise_offset": 0.3}, {"caption_drop": "hidden_states"}])
def test_recipes_of_the_original_are_the_same_cached_and_live(
    tiny_sdxl: Config, tmp_path: Path, cache: dict[str, object]
) -> None:
    config = _with_cache(tiny_sdxl, tmp_path, **cache)
    losses = {}
    for targets in ("cached", "live"):
        run = variant(config, tmp_path / targets, targets=targets, text_weight=0.1, steps=2)
        train_adapter.run(run, QUIET)
        losses[targets] = [row["loss"] for row in log_rows(run)]
    assert losses["cached"] == pytest.approx(losses["live"], rel=1e-5)
    plain = variant(tiny_sdxl, tmp_path / "plain", text_weight=0.1, steps=2)
    train_adapter.run(plain, QUIET)
    assert all(
        a != pytest.approx(row["loss"], rel=1e-4) for a, row in zip(losses["live"], log_rows(plain), strict=True)
    )
    with pytest.raises(IdentityError, match=r"cache\.draw_recipe"):
        prepare(variant(tiny_sdxl.model_copy(update={"cache": config.cache}), tmp_path / "other"), CPU)
    with pytest.raises(IdentityError, match=r"cache\.draw_recipe"):
        prepare(variant(config.model_copy(update={"cache": tiny_sdxl.cache}), tmp_path / "other"), CPU)


@pytest.mark.slow
def test_a_dropped_caption_may_stay_in_the_pooled_embedding(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = _with_cache(tiny_sdxl, tmp_path, caption_drop="hidden_states")
    batches = [prepare(variant(each, tmp_path / "run"), CPU).data.batch(0) for each in (config, tiny_sdxl)]
    kept, plain = batches
    assert kept.names == plain.names and kept.native_captions == plain.native_captions and "" in kept.native_captions
    assert kept.native_pooled_captions and all(kept.native_pooled_captions) and plain.native_pooled_captions is None
    dropped = [row for row, text in enumerate(kept.english_captions) if not text]
    assert dropped and (kept.noise_pred[dropped] != plain.noise_pred[dropped]).any(), "the teacher saw it too"
    others = [row for row, text in enumerate(kept.english_captions) if text]
    assert torch.equal(kept.noise_pred[others], plain.noise_pred[others])


def test_disturbed_text_has_the_length_asked_for_and_depends_on_the_seed() -> None:
    text = Conditioning(torch.zeros(6, 50, 400), torch.zeros(6, 400))
    one, again, other = (disturbed(text, 2.0, seed) for seed in (1, 1, 2))
    assert torch.equal(one.encoder_hidden_states, again.encoder_hidden_states)
    assert not torch.equal(one.encoder_hidden_states, other.encoder_hidden_states)
    assert one.encoder_hidden_states.norm(dim=-1).mean().item() == pytest.approx(2.0, rel=0.02)
    assert one.pooled_prompt_embeds is not None
    assert one.pooled_prompt_embeds.norm(dim=-1).mean().item() == pytest.approx(2.0, rel=0.1)


@pytest.mark.slow
def test_perturbation_changes_the_losses_reproducibly(tiny_sdxl: Config, tmp_path: Path) -> None:
    losses = []
    for name, length in (("plain", 0.0), ("one", 1.0), ("two", 1.0)):
        run = variant(tiny_sdxl, tmp_path / name, text_perturbation=length, text_weight=0.5, steps=2)
        train_adapter.run(run, QUIET)
        losses.append(log_rows(run))
    plain, one, two = losses
    assert [row["loss"] for row in one] == [row["loss"] for row in two]
    assert one[0]["features"] != pytest.approx(plain[0]["features"], rel=1e-6)
    assert one[0]["text"] == plain[0]["text"], "text states are compared as they are"


def test_stages_go_from_noisy_to_all_timesteps() -> None:
    found = stages(100, 4, 1000)
    assert found == [Stage(0, 750), Stage(25, 500), Stage(50, 250), Stage(75, 0)]
    opened: list[int] = []

    class Data:
        def __init__(self, timestep: int) -> None:
            opened.append(timestep)
            self.timestep = timestep

        def batch(self, index: int) -> tuple[int, int]:
            return self.timestep, index

    curriculum = Curriculum(found, Data)  # type: ignore[arg-type]
    answers = [curriculum.batch(index) for index in (0, 24, 25, 26, 74, 75, 500)]
    assert answers == [(750, 0), (750, 24), (500, 25), (500, 26), (250, 74), (0, 75), (0, 500)]
    assert opened == [750, 500, 250, 0]


@pytest.mark.slow
def test_the_curriculum_reads_the_timesteps_of_the_cache(tiny_sdxl: Config, tmp_path: Path) -> None:
    run = variant(tiny_sdxl, tmp_path, curriculum_steps=6, curriculum_stages=3, steps=8)
    setup = prepare(run, CPU)
    lowest = [int(batch.timesteps[: batch.num_parallel].min()) for batch in map(setup.batch, range(12))]
    assert all(value >= 666 for value in lowest[:2]) and all(value >= 333 for value in lowest[2:4])
    assert min(lowest[4:]) < 333
    assert setup.batch(9).names == setup.data.batch(9).names
    assert train_adapter.run(run, QUIET)["steps"] == 8


@pytest.mark.slow
def test_culture_samples_have_new_draws_or_a_few_fixed_ones(tiny_sdxl: Config, tmp_path: Path) -> None:
    draws: dict[int | None, set[str]] = {}
    for number in (None, 2):
        data = prepare(variant(tiny_sdxl, tmp_path, culture_draws=number), CPU).data
        batches = [data.batch(index) for index in range(20)]
        draws[number] = {name.split("#")[1] for batch in batches for name in batch.names[batch.num_parallel :]}
    assert len(draws[None]) > 4 and draws[2] == {"0", "1"}


@pytest.mark.slow
def test_held_out_rows_and_the_others_make_up_the_cache(tiny_sdxl: Config, tmp_path: Path) -> None:
    setup = prepare(variant(tiny_sdxl, tmp_path, validation_fraction=0.3, batch_size=4), CPU)
    whole = prepare(variant(tiny_sdxl, tmp_path), CPU)
    assert setup.validation is not None
    names = []
    for data in (setup.data, setup.validation):
        found = {name for index in range(6 * data.batches_per_epoch) for name in data.batch(index).names}
        names.append({name.split("#")[0] for name in found})
    assert names[0].isdisjoint(names[1])
    assert setup.data.num_records + setup.validation.num_records == whole.data.num_records == 48
    assert setup.data.num_culture_samples + setup.validation.num_culture_samples == 5
    share = is_held_out([f"t/{number}" for number in range(10_000)], 0.3).mean()
    assert share == pytest.approx(0.3, abs=0.02)
    with pytest.raises(CacheError, match=r"no rows are left.*validation_fraction"):
        prepare(variant(tiny_sdxl, tmp_path, validation_fraction=1 - 1e-6), CPU)


@pytest.mark.slow
def test_a_selection_of_everything_is_no_selection(tiny_sdxl: Config, tmp_path: Path) -> None:
    whole = prepare(variant(tiny_sdxl, tmp_path), CPU).data
    piece = next(iter(whole.parallel.values())).pieces[0]
    assert Selection().rows(piece.bucket, piece.tar) is None
    kept = Selection(timesteps=(200, 500)).rows(piece.bucket, piece.tar)
    timesteps = piece.bucket.read(["timestep"], 0, piece.bucket.num_records)["timestep"]
    assert kept is not None and kept.tolist() == [row for row, each in enumerate(timesteps) if 200 <= each < 500]


@pytest.mark.slow
def test_rows_of_chosen_timesteps(tiny_sdxl: Config, tmp_path: Path) -> None:
    whole = prepare(variant(tiny_sdxl, tmp_path), CPU).data
    data = prepare(variant(tiny_sdxl, tmp_path, timesteps=(100, 600), culture_timesteps=(900, 950)), CPU).data
    batches = [data.batch(index) for index in range(20)]
    parallel = torch.cat([batch.timesteps[: batch.num_parallel] for batch in batches])
    culture = torch.cat([batch.timesteps[batch.num_parallel :] for batch in batches])
    assert parallel.min() >= 100 and parallel.max() < 600 and data.num_records < whole.num_records
    assert culture.min() >= 900 and culture.max() < 950 and len(culture.unique()) > 10
    with pytest.raises(ConfigError, match=r"culture_timesteps: the teacher has no such.*up to 1000; got \[900, 1001\]"):
        prepare(variant(tiny_sdxl, tmp_path, culture_timesteps=(900, 1001)), CPU)
    with pytest.raises(CacheError, match=r"no rows are left.*train\.timesteps"):
        prepare(variant(tiny_sdxl, tmp_path, timesteps=(2000, 2001)), CPU)
